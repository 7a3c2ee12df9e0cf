import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// Rate limits of a share: of its guest's requests, and of the bytes that they move.
@Suite(.serialized) struct ShareLimitTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private func makeShare(_ options: String...) throws -> SupervisorProcess {
        let tree = directory.value.file("tree")
        #expect(unsafe mkdir(tree, 0o755) == 0)
        let supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton(["create", "share", "s", "--directory", tree] + options)
        #expect(made.code == 0, "\(made.output)")
        _ = try supervisor.wait("s", "a standby") { $0.isStaffed }
        return supervisor
    }

    /// What passed in a second.
    private struct Rate {
        var altogether: Double
        /// Only the time counted in which something was asked for: what a slow machine does between is not the limit's.
        var whileAsked: Double
    }

    /// What passes while `work` is done again and again for ten seconds.
    private func rate(
        _ supervisor: borrowing SupervisorProcess, _ count: (StatisticsInfo) -> UInt64, _ work: (Int) throws -> Void
    ) throws -> Rate {
        let before = try #require(try supervisor.status("s").statistics)
        var (after, round) = (before, 0)
        var asked: UInt64 = 0
        while after.time < before.time + 10_000_000_000 {
            let start = monotonicNanoseconds()
            try work(round)
            asked += monotonicNanoseconds() - start
            round += 1
            after = try #require(try supervisor.status("s").statistics)
        }
        let passed = Double(count(after) - count(before)) * 1e9
        return Rate(altogether: passed / Double(after.time - before.time), whileAsked: passed / Double(asked))
    }

    private func expect(_ rate: Rate, of limit: Double) {
        #expect(rate.altogether < limit * 1.05, "\(rate) of \(limit)")
        #expect(rate.whileAsked > limit * 0.95, "\(rate) of \(limit)")
    }

    @Test func `a limit of requests is held over a kill and an upgrade`() throws {
        var supervisor = try makeShare("--iops", "100", "--iops-burst", "100")
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        // The burst.
        for _ in 0..<150 { _ = try mount.client.attributes(of: FileClient.root) }
        let found = try rate(supervisor, \.operations) { round in
            for _ in 0..<100 { _ = try mount.client.attributes(of: FileClient.root) }
            switch round {
            case 2, 4:
                let result = try supervisor.baton(round == 2 ? "kill" : "upgrade", "s")
                #expect(result.code == 0, "\(result.output)")
            default: break
            }
        }
        expect(found, of: 100)
        let status = try supervisor.baton("status", "s").output
        #expect(status.contains("limit: 100 requests/s (burst 100)"), "\(status)")
        #expect(try supervisor.status("s").statistics?.throttled ?? 0 > 0)
        try mount.end()
        try supervisor.end()
    }

    private static func moved(_ statistics: StatisticsInfo) -> UInt64 {
        statistics.reads.bytes + statistics.writes.bytes
    }

    @Test func `a limit of bytes is one of reads, writes and copies`() throws {
        var supervisor = try makeShare("--bandwidth", "1M", "--bandwidth-burst", "64K")
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        let (file, open) = try mount.client.create(
            Array("data".utf8), in: FileClient.root, flags: 0o102, mode: 0o100644)
        let bytes = [UInt8](repeating: 7, count: 32 << 10)
        // What is larger than the burst passes, and is paid for afterwards.
        let found = try rate(supervisor, Self.moved) { round in
            for _ in 0..<16 {
                let written = try mount.client.write(bytes, file.node, open.handle, at: 0)
                let read = try mount.client.read(file.node, open.handle, at: 0, count: bytes.count)
                #expect(written == bytes.count && read == bytes)
            }
        }
        expect(found, of: 1_048_576)
        let start = monotonicNanoseconds()
        for _ in 0..<32 {
            let copied = try mount.client.copy(
                UInt64(bytes.count), from: .init(node: file.node, handle: open.handle, offset: 0),
                to: .init(node: file.node, handle: open.handle, offset: 1 << 20))
            #expect(copied == bytes.count)
        }
        #expect(monotonicNanoseconds() - start > 800_000_000, "a MiB but for what the burst lets pass")
        #expect(try supervisor.baton("limit", "s", "--none").output == "s: no limit\n")
        try mount.end()
        try supervisor.end()
    }
}
