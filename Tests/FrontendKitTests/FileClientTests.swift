import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// FUSE over virtio-fs, spoken to Debian 12's virtiofsd: what the tests of Baton's own server stand on.
@Suite(.serialized) struct FileClientTests {
    private let directory: TemporaryDirectoryBox
    private let daemon: Daemon
    private let share: String

    init() throws {
        let directory = try TemporaryDirectory()
        share = directory.file("share")
        #expect(unsafe mkdir(share, 0o755) == 0)
        daemon = Daemon(
            try VirtioFileDaemon(
                sharing: share, options: ["-o", "xattr,flock,posix_lock,killpriv_v2"], in: directory))
        self.directory = TemporaryDirectoryBox(directory)
    }

    /// Lets a copyable suite own it.
    private final class Daemon {
        var value: VirtioFileDaemon

        init(_ value: consuming VirtioFileDaemon) { self.value = value }

        deinit { value.program.stop() }
    }

    private func mount(_ layout: FileQueue.Layout = .init()) throws -> FileMount {
        var options = FileMount.Options()
        options.layout = layout
        return try FileMount(connectingTo: daemon.value.socketPath, options)
    }

    private func name(_ text: String) -> [UInt8] { Array(text.utf8) }

    @Test func `what was agreed on is within what was offered`() throws {
        let mount = try mount()
        let agreed = mount.client.limits
        let limits = try #require(agreed)
        #expect(limits.minor >= 31)
        #expect(limits.flags.isSubset(of: .linux))
        #expect(limits.maximumWrite == 1 << 20)
        try mount.end()
    }

    @Test(arguments: [nil, 4096] as [Int?], [true, false])
    func `a MiB is written and read back, in any layout of descriptors`(pieces: Int?, isIndirect: Bool) throws {
        let size = isIndirect || pieces == nil ? 1 << 20 : 64 << 10
        var mount = try mount(
            FileQueue.Layout(dataCapacity: size, pieceSize: pieces, isIndirect: isIndirect))
        let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 / 4096 &+ $0) }
        let (entry, open) = try mount.client.create(name("file"), in: FileClient.root, flags: 0o102, mode: 0o100644)
        #expect(try mount.client.write(bytes, entry.node, open.handle, at: 0) == size)
        #expect(try mount.client.read(entry.node, open.handle, at: 0, count: size) == bytes)
        #expect(try mount.client.attributes(of: entry.node).size == UInt64(size))
        try mount.client.release(entry.node, open.handle)
        #expect(try TestFile.read("\(share)/file", count: size) == bytes)
        try mount.end()
    }

    @Test func `errors are the host's, and names are what the host has`() throws {
        var mount = try mount()
        #expect(throws: FileError.refused(.noEntry)) { try mount.client.lookUp(name("none"), in: FileClient.root) }
        let made = try mount.client.makeDirectory(name("directory"), in: FileClient.root, mode: 0o750)
        #expect(made.attributes.mode == S_IFDIR | 0o750)
        for index in 0..<100 {
            _ = try mount.client.makeNode(name("node-\(index)"), in: made.node, mode: S_IFREG | 0o600)
        }
        let expected = Set((0..<100).map { "node-\($0)" })
        for (part, withNodes) in [(512, false), (4096, true)] {
            let found = try mount.client.listDirectory(made.node, part: part, withNodes: withNodes)
            #expect(Set(found.map { String(decoding: $0.name, as: UTF8.self) }) == expected)
            #expect(found.count == 100)
        }
        #expect(throws: FileError.refused(Errno(rawValue: ENOTEMPTY))) {
            try mount.client.removeDirectory(name("directory"), in: FileClient.root)
        }
        #expect(Set(TestFile.names(in: "\(share)/directory")) == expected)
        try mount.end()
    }

    @Test func `locks are in each other's way`() throws {
        var mount = try mount()
        let (entry, open) = try mount.client.create(name("file"), in: FileClient.root, flags: 0o102, mode: 0o100644)
        try mount.client.setLock(.init(.write, 10...19, owner: 1), entry.node, open.handle)
        #expect(throws: FileError.refused(.wouldBlock)) {
            try mount.client.setLock(.init(.read, 0...UInt64(Int64.max), owner: 2), entry.node, open.handle)
        }
        let found = try #require(try mount.client.conflict(with: .init(.read, owner: 2), entry.node, open.handle))
        #expect(found.kind == .write)
        #expect(found.range == 10...19)
        try mount.client.setLock(.init(.none, owner: 1), entry.node, open.handle)
        try mount.client.setLock(.init(.read, owner: 2), entry.node, open.handle)
        try mount.end()
    }

    @Test func `many clients at once get the answers that they must`() throws {
        var options = VerifiedFileLoad.Options(seed: makeSeed())
        options.requestLimit = 3000
        options.looksFirst = true
        var load = try VerifiedFileLoad(connectingTo: daemon.value.socketPath, options)
        let report = try load.run()
        #expect(report.isClean, "\(report)")
        #expect(report.total >= 3000)
    }
}
