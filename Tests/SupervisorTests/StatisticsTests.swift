import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// What `baton status` says that a device has done, held against what its front-end has done.
@Suite(.serialized) struct StatisticsTests {
    /// A device under a verified load.
    private final class Stage {
        let directory = TemporaryDirectoryBox(try! TemporaryDirectory())
        let monitor = LoadMonitor()
        let outcome = LoadOutcome()
        private var thread: JoinableThread?
        private var rig: Rig?

        func begin(_ supervisor: borrowing SupervisorProcess, seed: UInt64) throws {
            var rig = try Rig(connectingTo: directory.value.file("d.sock"), queueCount: 2, memorySize: 64 << 20)
            var options = VerifiedLoad.Options(seed: seed, sectors: 0..<4096)
            options.overlapping = true
            options.depth = 16
            options.requestLimit = nil
            options.timeLimit = 600_000
            options.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
            let load = VerifiedLoad(
                rig.endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: options, in: &rig.allocator)
            self.rig = consume rig
            thread = try JoinableThread(name: "load") { [outcome, monitor] in outcome.run(load, monitor) }
        }

        /// Lets the load go on for a while.
        func advance(_ count: Int) {
            let due = monitor.completedRequests + count
            while monitor.completedRequests < due, !outcome.hasEnded { usleep(100) }
        }

        func end() throws -> LoadReport {
            monitor.requestStop()
            if let thread = thread.take() { thread.join() }
            return try outcome.report()
        }
    }

    private func statistics(_ supervisor: borrowing SupervisorProcess) throws -> StatisticsInfo {
        try #require(try supervisor.status("d").statistics)
    }

    /// Never more than was done; at most one request less for each kill.
    @Test func `counts go on over kills and upgrades, of workers and of the supervisor`() throws {
        let seed = makeSeed()
        let stage = Stage()
        let image = stage.directory.value.file("disk.img")
        try TestFile.create(image, count: 64 << 20)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: stage.directory)
        _ = try supervisor.baton(
            "create", "disk", "d", "--file", image, "--queues", "2", "--threads", "2", "--cache", "buffered")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        try stage.begin(supervisor, seed: seed)
        var kills: UInt64 = 0
        for round in 1...12 {
            stage.advance(300)
            let before = try supervisor.wait("d", "a standby") { $0.isStaffed && $0.upgrade == nil }
            let counted = try #require(before.statistics).operations
            #expect(counted > 0 && !stage.outcome.hasEnded)
            switch round % 4 {
            case 0: #expect(try supervisor.baton("upgrade", "d").code == 0)
            case 1: try supervisor.killAndRestart()
            default:
                kills += 1
                #expect(try supervisor.baton("kill", "d").code == 0)
                _ = try supervisor.wait("d", "a take-over") { $0.isStaffed && $0.active?.id != before.active?.id }
            }
            #expect(try statistics(supervisor).operations >= counted, "a sum went back in round \(round)")
        }
        stage.advance(300)
        let report = try stage.end()
        #expect(report.isClean, "seed \(seed): \(report)")
        // The guest sees its last answers before the worker counts how long they took.
        let info = try supervisor.wait("d", "an idle device") { $0.statistics?.inFlight == 0 }
        let found = try #require(info.statistics)
        let kinds: [(LoadOperation, OperationInfo)] = [
            (.read, found.reads), (.write, found.writes), (.flush, found.flushes), (.discard, found.discards),
            (.writeZeroes, found.writeZeroes),
        ]
        var missing: UInt64 = 0
        for (operation, counted) in kinds {
            let done = UInt64(report[operation].requests)
            #expect(counted.operations <= done, "\(operation), seed \(seed)")
            missing += done - min(done, counted.operations)
        }
        #expect(missing <= kills, "seed \(seed): \(missing) requests are missing after \(kills) kills")
        #expect(found.deaths == kills && found.handOvers == 3)
        #expect(found.lastGap != nil && found.oldest == nil && found.errors == 0)
        let text = try supervisor.baton("status", "d").output
        #expect(text.contains("reads: \(found.reads.operations), "), "\(text)")
        #expect(text.contains("in flight: 0\n") && text.contains("last gap: "), "\(text)")
        try supervisor.end()
    }

    private struct Row: Decodable {
        var name: String
        var seconds: Double
        var iops: Double
        var readBytesPerSecond: Double
        var p50: UInt64?
        var p99: UInt64?
        var generation: UInt64
    }

    @Test func `top shows rates that are those of the counts`() throws {
        let seed = makeSeed()
        let stage = Stage()
        let image = stage.directory.value.file("disk.img")
        try TestFile.create(image, count: 64 << 20)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: stage.directory)
        _ = try supervisor.baton("create", "disk", "d", "--file", image, "--queues", "2", "--cache", "buffered")
        _ = try supervisor.baton("create", "disk", "idle", "--null")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let before = try statistics(supervisor)
        try stage.begin(supervisor, seed: seed)
        stage.advance(100)
        let lines = try supervisor.baton("top", "d", "--json", "--interval", "0.2", "--count", "3").output
            .split(separator: "\n")
        let rows = try lines.map { try JSONDecoder().decode(Row.self, from: Data($0.utf8)) }
        let table = try supervisor.baton("top", "--interval", "0.1", "--count", "2").output.split(
            separator: "\n", omittingEmptySubsequences: true)
        let report = try stage.end()
        #expect(report.isClean, "seed \(seed): \(report)")
        let after = try statistics(supervisor)
        #expect(rows.count == 3 && rows.allSatisfy { $0.name == "d" && $0.generation == 1 && $0.seconds >= 0.2 })
        let shown = rows.reduce(0) { $0 + $1.iops * $1.seconds }
        #expect(shown > 0 && shown <= Double(after.operations - before.operations) + 0.5)
        let read = rows.reduce(0) { $0 + $1.readBytesPerSecond * $1.seconds }
        #expect(read > 0 && read <= Double(after.reads.bytes) + 0.5)
        for row in rows where row.iops > 0 { #expect(try #require(row.p50) <= #require(row.p99)) }
        #expect(table.filter { $0.hasPrefix("NAME  ") }.count == 2, "\(table)")
        #expect(table.filter { $0.hasPrefix("d ") }.count == 2 && table.filter { $0.hasPrefix("idle ") }.count == 2)
        #expect(!table.joined().contains("\u{1b}"), "no terminal: nothing is redrawn")
        let missing = try supervisor.baton("top", "nobody", "--count", "1")
        #expect(missing.code == 1 && missing.output.contains("there is no device 'nobody'"))
        try supervisor.end()
    }
}
