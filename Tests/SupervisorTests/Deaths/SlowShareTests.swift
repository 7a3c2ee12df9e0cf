import ControlAPI
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A worker of a share dies while the storage takes its time over a request, and takes it again with the next one.
@Suite(.serialized, .enabled(if: geteuid() == 0)) struct SlowShareTests {
    @Test func `a successor has the device while what it found waits for the storage`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let disk = try SlowDisk(bytes: 64 << 20, in: directory.value)
        defer { disk.end() }
        let files = try MountedFileSystem(disk.path, at: directory.value.file("fs"))
        let tree = "\(files.path)/tree"
        #expect(unsafe mkdir(tree, 0o755) == 0)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton("create", "share", "s", "--directory", tree)
        #expect(made.code == 0, "\(made.output)")
        let before = try supervisor.wait("s", "a standby") { $0.isStaffed }
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        // With nothing to write any more it asks for one flush.
        for _ in 0..<2 { try mount.client.synchronizeFileSystem() }
        disk.hold(.flush)
        // A system call of the loop: the kernel lets go of the thread when the flush has ended.
        _ = mount.client.begin(.synchronizeFileSystem, FileClient.root, arguments: [UInt8](repeating: 0, count: 8))
        try disk.waitForHeld(.flush)
        kill(try #require(before.active).pid, SIGKILL)
        disk.answerHeld(.flush)
        try disk.waitForHeld(.flush)
        // Were it not said that it has the device, it would be killed for that, and the next one after it.
        _ = try supervisor.wait("s", "a successor that says so") { $0.active?.pid == before.standby?.pid }
        #expect(disk.heldCount(.flush) == 1)
        disk.release(.flush)
        let hasEnded = try mount.client.finish(.synchronizeFileSystem, milliseconds: 60_000)
        #expect(hasEnded)
        let after = try supervisor.wait("s", "a standby") { $0.isStaffed }
        #expect(after.takeOvers == 1)
        try mount.end()
        try supervisor.end()
    }
}
