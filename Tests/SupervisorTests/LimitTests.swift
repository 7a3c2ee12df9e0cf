import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// Rate limits, held against a load that could do many times as much, on a machine that is busy, too.
@Suite(.serialized) struct LimitTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())
    private var socket: String { directory.value.file("d.sock") }

    private func makeDisk(_ options: String...) throws -> SupervisorProcess {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 8 << 20)
        let supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton(["create", "disk", "d", "--file", image, "--cache", "buffered"] + options)
        #expect(made.code == 0, "\(made.output)")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        return supervisor
    }

    private func statistics(_ supervisor: borrowing SupervisorProcess) throws -> StatisticsInfo {
        try #require(try supervisor.status("d").statistics)
    }

    /// What passes in a second, of requests or bytes, from now on until `seconds` have passed.
    private func rate(
        _ supervisor: borrowing SupervisorProcess, _ load: RunningLoad, seconds: UInt64, _ step: Int,
        _ count: (StatisticsInfo) -> UInt64, meanwhile: () throws -> Void = {}
    ) throws -> Double {
        let before = try statistics(supervisor)
        var after = before
        while after.time < before.time + seconds * 1_000_000_000 {
            try #require(load.completes(step))
            try meanwhile()
            after = try statistics(supervisor)
        }
        return Double(count(after) - count(before)) * 1e9 / Double(after.time - before.time)
    }

    private func expect(_ rate: Double, of limit: Double) {
        #expect(rate > limit * 0.95 && rate < limit * 1.05, "\(rate) in a second, of \(limit)")
    }

    @Test func `a limit of requests is held for ten seconds, by two loops`() throws {
        var supervisor = try makeDisk(
            "--queues", "2", "--threads", "2", "--iops", "100", "--iops-burst", "30")
        let load = try RunningLoad(socket, queues: 2)
        // The burst.
        #expect(load.completes(150))
        expect(try rate(supervisor, load, seconds: 10, 100, \.operations), of: 100)
        let status = try supervisor.baton("status", "d").output
        #expect(status.contains("limit: 100 requests/s (burst 30)"), "\(status)")
        #expect(try statistics(supervisor).throttled > 0)
        try load.end()
        try supervisor.end()
    }

    @Test func `a limit is held over kills, and an upgrade: none gives a fresh burst`() throws {
        var supervisor = try makeDisk("--iops", "100", "--iops-burst", "100")
        let load = try RunningLoad(socket)
        #expect(load.completes(150))
        var kills = 0
        let found = try rate(supervisor, load, seconds: 10, 130, \.operations) {
            guard kills < 5 else { return }
            kills += 1
            if kills == 3 {
                #expect(try supervisor.baton("upgrade", "d").code == 0)
            } else {
                #expect(try supervisor.baton("kill", "d").code == 0)
            }
            _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        }
        #expect(kills == 5)
        expect(found, of: 100)
        try load.end()
        try supervisor.end()
    }

    @Test func `a limit of bytes is held for ten seconds, and what is larger than its burst passes`() throws {
        let limit = 512.0 * 1024
        var supervisor = try makeDisk("--bandwidth", "512K", "--bandwidth-burst", "128K")
        let load = try RunningLoad(socket)
        #expect(load.completes(50))
        let found = try rate(supervisor, load, seconds: 10, 20, { $0.reads.bytes + $0.writes.bytes })
        expect(found, of: limit)
        #expect(try supervisor.baton("limit", "d", "--bandwidth", "1M", "--bandwidth-burst", "4K").code == 0)
        #expect(load.completes(100))
        try load.end()
        try supervisor.end()
    }

    @Test func `limits are changed while a load runs`() throws {
        var supervisor = try makeDisk()
        #expect(try supervisor.baton("limit", "d").output == "d: no limit\n")
        let load = try RunningLoad(socket)
        #expect(load.completes(500))
        #expect(try supervisor.baton("limit", "d", "--iops", "1").output == "d: 1 requests/s\n")
        // A minute's worth at this limit, if it were still in force.
        let made = try supervisor.baton("limit", "d", "--iops=5000", "--iops-burst=100", "--bandwidth=100M")
        #expect(made.output == "d: 5000 requests/s (burst 100), 100 MiB/s\n")
        #expect(load.completes(60))
        #expect(try supervisor.baton("limit", "d", "--bandwidth", "0").output == "d: 5000 requests/s (burst 100)\n")
        let list = try supervisor.baton("list").output
        #expect(list.contains("5000 requests/s (burst 100)"), "\(list)")
        // It is there after the supervisor's death, and after everybody's.
        try supervisor.killAndRestart()
        #expect(try supervisor.status("d").disk.limit == LimitInfo(iops: 5000, iopsBurst: 100))
        #expect(load.completes(500))
        #expect(try supervisor.baton("limit", "d", "--none").output == "d: no limit\n")
        #expect(load.completes(500))
        try load.end()
        for (options, said) in [
            (["--iops", "10000001"], "1 to 10000000, not 10000001"), (["--bandwidth", "1K"], "4096 to"),
            (["--iops-burst", "5"], "a burst of requests needs a limit"), (["--bandwidth", "much"], "such as 100M"),
        ] {
            let result = try supervisor.baton(["limit", "d"] + options)
            #expect(result.code != 0 && result.output.contains(said), "\(result)")
        }
        #expect(try supervisor.baton("limit", "e", "--iops", "5").code != 0)
        try supervisor.end()
    }
}
