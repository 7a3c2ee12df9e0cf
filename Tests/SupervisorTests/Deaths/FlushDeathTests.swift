import ControlAPI
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A worker dies while the storage takes its time over a FLUSH.
@Suite(.serialized, .enabled(if: geteuid() == 0)) struct FlushDeathTests {
    private let directory: TemporaryDirectoryBox

    init() throws { directory = TemporaryDirectoryBox(try TemporaryDirectory()) }

    @Test func `reads under way do not wait for a FLUSH that the dead worker has asked for`() throws {
        let disk = try SlowDisk(bytes: 1 << 20, in: directory.value)
        defer { disk.end() }
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton("create", "disk", "d", "--file", disk.path, "--cache", "direct")
        #expect(made.code == 0, "\(made.output)")
        let before = try #require(try supervisor.wait("d", "a standby") { $0.isStaffed }.active)
        var rig = try Rig(connectingTo: directory.value.file("d.sock"))
        let driver = DriverQueue(rig.endpoints[0], usesEventIndex: rig.frontend.usesEventIndex)
        var queue = BlockQueue(driver, depth: 8, layout: .direct, maximumPieces: 1, in: &rig.allocator)
        disk.hold(.transfer, .flush)
        for index in 0..<4 as Range<UInt64> {
            let buffer = rig.allocator.allocate(4096, alignment: 4096)
            queue.submit(
                BlockRequest(.read, sector: index * 256, dataAddress: buffer, dataLength: 4096, token: index))
        }
        queue.publish()
        try disk.waitForHeld(.transfer, 4)
        queue.submit(BlockRequest(.flush, sector: 0, dataAddress: 0, dataLength: 0, token: 9))
        queue.publish()
        try disk.waitForHeld(.flush)

        kill(before.pid, SIGKILL)
        _ = try supervisor.wait("d", "a successor") { $0.takeOvers == 1 }
        disk.release(.transfer)
        var seen: [UInt64] = []
        while seen.count < 4 {
            let hasCome = queue.waitForCompletion(milliseconds: 60_000)
            try #require(hasCome, "\(seen) have come, and the FLUSH is held")
            while let completion = try queue.nextCompletion() {
                #expect(completion.status == .ok)
                seen.append(completion.token)
            }
        }
        #expect(seen.sorted() == [0, 1, 2, 3])
        #expect(disk.heldCount(.flush) >= 1)
        disk.release(.flush)
        let hasCome = queue.waitForCompletion(milliseconds: 60_000)
        try #require(hasCome, "the FLUSH has not been carried out again")
        let completion = try queue.nextCompletion()
        #expect(completion?.token == 9)
        #expect(completion?.status == .ok)
        try supervisor.end()
    }
}
