import ControlAPI
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A front-end under verified load, while workers, their programs and their supervisor are replaced under it. It never
/// connects again: every request is completed once, with the right data.
@Suite(.serialized) struct ServingTests {
    enum Blow: String, CaseIterable { case workerKilled, workerUpgraded, supervisorKilled, supervisorUpgraded }

    @Test(arguments: Blow.allCases) func `the front-end notices nothing`(_ blow: Blow) throws {
        let seed = makeSeed()
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 64 << 20)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton(
            "create", "disk", "d", "--file", image, "--queues", "2", "--threads", "2", "--cache", "buffered")
        #expect(made.code == 0, "\(made.output)")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        var rig = try Rig(
            connectingTo: directory.value.file("d.sock"), queueCount: 2, memorySize: 64 << 20)
        var options = VerifiedLoad.Options(seed: seed, sectors: 0..<4096)
        options.overlapping = true
        options.depth = 16
        options.requestLimit = nil
        options.timeLimit = 600_000
        options.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
        let load = VerifiedLoad(
            rig.endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: options, in: &rig.allocator)
        let monitor = LoadMonitor()
        let outcome = LoadOutcome()
        let thread = try JoinableThread(name: "load") { outcome.run(load, monitor) }
        for round in 1...5 {
            let due = monitor.completedRequests + 500
            while monitor.completedRequests < due, !outcome.hasEnded { usleep(100) }
            #expect(!outcome.hasEnded, "the load ended in round \(round)")
            try strike(blow, &supervisor)
        }
        // What is broken now does not complete another request.
        let due = monitor.completedRequests + 500
        while monitor.completedRequests < due, !outcome.hasEnded { usleep(100) }
        monitor.requestStop()
        thread.join()
        let report = try outcome.report()
        #expect(report.isClean, "seed \(seed): \(report)")
        #expect(try supervisor.status("d").connections == 1)
        try supervisor.end()
    }

    private func strike(_ blow: Blow, _ supervisor: inout SupervisorProcess) throws {
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed && $0.upgrade == nil }
        switch blow {
        case .workerKilled:
            #expect(try supervisor.baton("kill", "d").code == 0)
            _ = try supervisor.wait("d", "a take-over") { $0.isStaffed && $0.active?.id != before.active?.id }
        case .workerUpgraded:
            let result = try supervisor.baton("upgrade", "d")
            #expect(result.code == 0, "\(result.output)")
            let after = try supervisor.status("d")
            #expect(after.workers.allSatisfy { $0.id > (before.workers.map(\.id).max() ?? 0) })
        case .supervisorKilled:
            try supervisor.killAndRestart()
            #expect(try supervisor.status("d").workers.map(\.pid) == before.workers.map(\.pid))
        case .supervisorUpgraded:
            let result = try supervisor.baton("upgrade", "--supervisor")
            #expect(result.code == 0, "\(result.output)")
            #expect(try supervisor.status("d").workers.map(\.pid) == before.workers.map(\.pid))
        }
    }
}

/// What a load in another thread came to.
private final class LoadOutcome: @unchecked Sendable {
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
