import ControlAPI
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A file system that is mounted inside a share. Each worker sees a mount of its own of it.
@Suite struct SubmountTests {
    @Test(.enabled(if: geteuid() == 0)) func `a mount in a share is the same for each worker`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let tree = directory.value.file("tree")
        #expect(unsafe mkdir(tree, 0o755) == 0)
        let image = directory.value.file("fs.img")
        try TestFile.create(image, count: 16 << 20)
        let mounted = try MountedFileSystem(image, at: "\(tree)/inner")
        try TestFile.create("\(mounted.path)/file", count: 100)

        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton("create", "share", "s", "--directory", tree, "--tag", "tree")
        #expect(made.code == 0, "\(made.output)")
        _ = try supervisor.wait("s", "a standby") { $0.isStaffed }
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        let inner = try mount.client.lookUp(Array("inner".utf8), in: FileClient.root)
        let file = try mount.client.lookUp(Array("file".utf8), in: inner.node)
        // More workers than the share has places for mounts.
        for round in 0..<40 {
            let victim = try supervisor.wait("s", "a standby") { $0.isStaffed }.active
            #expect(try supervisor.baton("kill", "s").code == 0)
            _ = try supervisor.wait("s", "another worker") { $0.isStaffed && $0.active?.id != victim?.id }
            // By its node; then by names, through a mount that this worker has not met yet.
            #expect(try mount.client.attributes(of: file.node).inode == file.attributes.inode)
            let again = try mount.client.lookUp(Array("inner".utf8), in: FileClient.root)
            #expect(again.node == inner.node, "round \(round)")
            #expect(try mount.client.lookUp(Array("file".utf8), in: again.node).node == file.node, "round \(round)")
        }
        let opened = try mount.client.open(file.node, flags: 0)
        #expect(try mount.client.read(file.node, opened.handle, at: 0, count: 200).count == 100)
        try mount.client.release(file.node, opened.handle)
        try mount.end()
        try supervisor.end()
        withExtendedLifetime(mounted) {}
    }
}
