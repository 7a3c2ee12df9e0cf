import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A front-end under verified load in a thread of its own, until it is ended. It connects once.
final class RunningLoad {
    private let rig: RigBox
    private let monitor = LoadMonitor()
    private let outcome = LoadOutcome()
    private var thread: JoinableThread?
    private let seed: UInt64

    /// A rig, which has no copies, where a class can keep it.
    private final class RigBox {
        var rig: Rig
        init(_ rig: consuming Rig) { self.rig = rig }
    }

    init(_ socket: String, queues: Int = 1, sectors: Range<UInt64> = 0..<4096) throws {
        seed = makeSeed()
        var options = VerifiedLoad.Options(seed: seed, sectors: sectors)
        options.overlapping = true
        options.depth = 16
        options.requestLimit = nil
        options.timeLimit = 600_000
        var rig = try Rig(connectingTo: socket, queueCount: queues, memorySize: 64 << 20)
        options.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
        let load = VerifiedLoad(
            rig.endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: options, in: &rig.allocator)
        self.rig = RigBox(rig)
        thread = try JoinableThread(name: "load") { [outcome, monitor] in outcome.run(load, monitor) }
    }

    /// Waits for so many more requests. One that has ended by itself completes none.
    func completes(_ count: Int) -> Bool {
        let due = monitor.completedRequests + count
        while monitor.completedRequests < due, !outcome.hasEnded { usleep(100) }
        return !outcome.hasEnded
    }

    /// Ends it; every request must have been completed once, with the right data.
    func end() throws {
        monitor.requestStop()
        thread.take()?.join()
        let report = try outcome.report()
        #expect(report.isClean, "seed \(seed): \(report)")
    }
}

/// What a load in another thread came to.
final class LoadOutcome: @unchecked Sendable {
    private var result: Result<LoadReport, LoadError>?
    private let ended = try! EventFD()

    var hasEnded: Bool { waitForInput(ended.fd.number, milliseconds: 0) }

    func run(_ load: VerifiedLoad, _ monitor: LoadMonitor) {
        do throws(LoadError) {
            result = .success(try load.run(monitor: monitor))
        } catch {
            result = .failure(error)
        }
        ended.signal()
    }

    /// To be asked when its thread has ended.
    func report() throws -> LoadReport { try #require(result).get() }
}
