import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A worker that runs on its own is killed under load and started again: the front-end that reconnects finds every
/// request completed once, with the right data.
@Suite(.serialized) struct DeathTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    struct Case: CustomStringConvertible {
        var medium: Medium
        var queues: Int
        var ring: RingKind

        static let all = [Medium.directFile, .bufferedFile, .loopDevice512].flatMap { medium in
            RingKind.allCases.flatMap { ring in [1, 4].map { Case(medium: medium, queues: $0, ring: ring) } }
        }
        var description: String { "\(queues) \(ring) queues on \(medium)" }
    }

    @Test(arguments: Case.all)
    func `every request is completed once, however often the worker is killed`(_ run: Case) throws {
        let (medium, queues) = (run.medium, run.queues)
        let seed = makeSeed()
        let (options, device) = try medium.storage(in: directory.value)
        defer { withExtendedLifetime(device) {} }
        let arguments = options + ["--queues=\(queues)"]
        var worker = try WorkerProcess(arguments, in: directory.value)
        var rig = try Rig(
            connectingTo: worker.socketPath, behaviour: run.ring.behaviour, queueCount: queues, memorySize: 64 << 20)
        #expect(rig.frontend.usesPackedRings == (run.ring == .packed))
        var load = VerifiedLoad.Options(seed: seed, sectors: 0..<4096)
        load.overlapping = true
        load.depth = 32
        load.requestLimit = nil
        load.timeLimit = 600_000
        load.usesInterrupts = false
        load.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
        let running = VerifiedLoad(
            rig.endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: load, in: &rig.allocator)
        let monitor = LoadMonitor()
        let outcome = LoadOutcome()
        let thread = try JoinableThread(name: "load") { outcome.run(running, monitor) }
        var random = Xorshift(state: seed)
        // Ten deaths, and more where fast storage has left none of them a request in flight.
        var kill = 0
        while kill < 10 || (kill < 100 && !worker.program.output.contains("left requests in flight")) {
            kill += 1
            // A death is due after so many more requests, at a moment that nobody chose.
            let due = monitor.completedRequests + Int(random.next() % 400)
            while monitor.completedRequests < due, !outcome.hasEnded { pause() }
            worker.program.send(signal: SIGKILL)
            worker.program.wait(milliseconds: 60_000)
            unsafe unlink(worker.socketPath)
            worker = try WorkerProcess(arguments, in: directory.value)
            try rig.frontend.reconnect()
            #expect(!outcome.hasEnded, "the load ended at kill \(kill)")
        }
        monitor.requestStop()
        thread.join()
        let report = try outcome.report()
        #expect(report.isClean, "seed \(seed): \(report)")
        // The log is that of all workers.
        let carriedOn = worker.program.output.split(separator: "\n").filter { $0.contains("left requests in flight") }
        #expect(!carriedOn.isEmpty, "no kill hit a request in flight")
    }

    private func pause() { usleep(50) }
}

/// What a load in another thread came to.
private final class LoadOutcome: @unchecked Sendable {
    private var result: Result<LoadReport, LoadError>?
    private let ended = EventBox()

    var hasEnded: Bool { waitForInput(ended.event.fd.number, milliseconds: 0) }

    func run(_ load: VerifiedLoad, _ monitor: LoadMonitor) {
        do throws(LoadError) {
            result = .success(try load.run(monitor: monitor))
        } catch {
            result = .failure(error)
        }
        ended.event.signal()
    }

    /// To be asked when its thread has ended.
    func report() throws -> LoadReport { try #require(result).get() }
}

private final class EventBox: Sendable {
    let event = try! EventFD()
}

/// Small, seeded, enough to choose moments.
private struct Xorshift {
    var state: UInt64

    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
}
