import ControlAPI
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// Upgrades that fail when the old worker has frozen: it takes the device up again, and nothing of before is left.
@Suite(.serialized) struct ThawTests {
    @Test func `a worker that freezes and thaws again and again keeps nothing of it`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        let bad = try SupervisorProcess.scriptedWorker("traps", in: directory)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton("create", "disk", "d", "--file", image, "--cache", "buffered", "--queues", "2")
        #expect(made.code == 0, "\(made.output)")
        let worker = try #require(try supervisor.wait("d", "a standby") { $0.isStaffed }.active)
        var rig = try Rig(connectingTo: directory.value.file("d.sock"))
        var driver = rig.makeDriver()
        let data = [UInt8](repeating: 7, count: 4096)
        #expect(try driver.write(data, sector: 0).status == .ok)
        var before: Holdings?
        for round in 0..<6 {
            let upgrade = try supervisor.baton("upgrade", "d", "--worker", bad)
            #expect(upgrade.code == 1, "\(upgrade.output)")
            #expect(try driver.write(data, sector: 8).status == .ok)
            #expect(try driver.read(sector: 8, count: 4096).data == data)
            let after = try supervisor.wait("d", "the old build") { $0.isStaffed && $0.upgrade == nil }
            #expect(after.active?.pid == worker.pid)
            // What the first time leaves is what a worker has that has been a successor.
            if let before { try wait(for: before, worker.pid, round) } else { before = try settled(worker.pid) }
        }
        try rig.frontend.stop()
        try supervisor.end()
    }

    /// What a worker has.
    private struct Holdings: Equatable {
        var threads: Int
        var descriptors: Int
        var guestMappings: Int
    }

    private func holdings(_ process: Int32) -> Holdings {
        let maps = (readSmallFile("/proc/\(process)/maps") ?? "").split(separator: "\n")
        return Holdings(
            threads: TestFile.names(in: "/proc/\(process)/task").count,
            descriptors: TestFile.names(in: "/proc/\(process)/fd").count,
            guestMappings: maps.count { $0.contains("/memfd:guest") })
    }

    /// When nothing of the loops before is left: as many threads for its one queue loop as there are.
    private func settled(_ process: Int32) throws -> Holdings {
        let end = monotonicNanoseconds() + 60_000_000_000
        while true {
            let now = holdings(process)
            let loops = TestFile.names(in: "/proc/\(process)/task").count {
                (readSmallFile("/proc/\(process)/task/\($0)/comm") ?? "").hasPrefix("loop-")
            }
            if loops == 1 { return now }
            try #require(monotonicNanoseconds() < end, "\(loops) loops are left")
            pause(milliseconds: 5)
        }
    }

    private func wait(for before: Holdings, _ process: Int32, _ round: Int) throws {
        let end = monotonicNanoseconds() + 60_000_000_000
        while holdings(process) != before {
            try #require(
                monotonicNanoseconds() < end, "after \(round + 1) rounds \(holdings(process)), before \(before)")
            pause(milliseconds: 5)
        }
    }
}
