internal import Custody
internal import Glibc
internal import Platform

/// The loops of the worker that has a device, as they were seen last.
struct WorkerWatch {
    let generation: UInt64
    var loops: [LoopWatch]
    /// Where each loop sleeps: has input when something has come for it that it has not taken; nil: not to be had.
    let pollers: [SharedFD?]
}

/// A look at a kernel ring, to be kept with others.
final class RingSight: Sendable {
    private let sight: KernelRingSight

    /// nil: it cannot be looked at; its loop is judged by the rest.
    init?(_ ring: SharedFD, parameters: [UInt8]) {
        do throws(Errno) {
            sight = try KernelRingSight(ring.fd, parameters: parameters)
        } catch {
            return nil
        }
    }

    var hasWork: Bool { sight.hasWork }
}

extension DeviceCustody {
    /// A front-end could be waiting for a worker that goes on no more.
    var mustWatch: Bool { machine.isConnected && machine.active != nil }

    /// Looks at the loops of the worker that has the device, and kills it when one goes on no more.
    ///
    /// - Parameters:
    ///   - now: in nanoseconds.
    ///   - limit: how long a loop may leave work undone, in nanoseconds.
    func watchLoops(at now: UInt64, limit: UInt64) {
        guard mustWatch, let worker = machine.active, worker.generation > 0, record.owner == worker.generation,
            let link = links[worker.id]
        else {
            watch = nil
            return
        }
        var current =
            watch.flatMap { $0.generation == worker.generation ? $0 : nil } ?? beginWatch(worker.generation, link)
        for loop in current.loops.indices {
            let sight = record.loop(loop)
            let look = LoopWatch.Look(
                turns: sight.turns, handling: sight.handling, isResting: sight.isResting,
                hasArrivals: hasArrivals(loop, current.pollers[loop]))
            let stuck = current.loops[loop].observe(look, at: now, limit: limit)
            guard stuck >= limit, !waitsForStorage(loop, link) else { continue }
            // Before it is killed: its successor must know that it was no kill from outside.
            record.noteHang(worker.generation, handling: sight.handling)
            link.process.send(signal: SIGKILL)
            break
        }
        watch = current
    }

    private func ringSight(_ loop: Int) -> RingSight? {
        if ringSights.isEmpty {
            ringSights = rings.enumerated().map { RingSight($1, parameters: record.ringParameters($0)) }
        }
        return loop < ringSights.count ? ringSights[loop] : nil
    }

    private func beginWatch(_ generation: UInt64, _ link: WorkerLink) -> WorkerWatch {
        let loops = 0..<configuration.threadCount
        let pollers = loops.map { loop -> SharedFD? in
            guard let number = record.loop(loop).poller, let fd = try? link.process.duplicate(descriptor: number) else {
                return nil
            }
            return SharedFD(fd)
        }
        return WorkerWatch(generation: generation, loops: loops.map { _ in LoopWatch() }, pollers: pollers)
    }

    /// Kicks, commands and completions: the poller has them. What the loop's thread would have to finish for the kernel
    /// before it completes, only the ring shows.
    private func hasArrivals(_ loop: Int, _ poller: SharedFD?) -> Bool {
        if let poller, waitForInput(poller.number, milliseconds: 0) { return true }
        return ringSight(loop)?.hasWork ?? false
    }

    /// A thread that the kernel does not let go of waits for storage: a kill would change nothing before that is over.
    private func waitsForStorage(_ loop: Int, _ link: WorkerLink) -> Bool {
        guard let thread = record.ownerThread(ring: loop) else { return false }
        link.lookAtThreads()
        return link.threads.first { $0.number == thread }?.state?.letter == "D"
    }
}
