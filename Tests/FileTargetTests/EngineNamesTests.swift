import CWire
import Custody
import Foundation
import Glibc
import Platform
import TestSupport
import Testing
import Uring

@testable import FileTarget

@Suite("A share: names change through the engine")
struct EngineNamesTests {
    @Test func `UNLINK, RMDIR and RENAME`() throws {
        var description = ShareDescription(tag: "t")
        description.changesNamesThroughEngine = true
        let bench = try ShareBench(description)
        _ = try bench.makeDirectory("d")
        let (file, _) = try bench.create("a")
        let d = try bench.lookUp("d").nodeid
        let move = bench.bytes(wire_fuse_rename_in(newdir: d)) + bench.text("a") + bench.text("b")
        #expect(bench.call(WIRE_FUSE_RENAME, ShareBench.root, move).error == nil)
        #expect(bench.call(WIRE_FUSE_RENAME, ShareBench.root, move).error == .noEntry)
        #expect(try bench.lookUp("b", in: d).nodeid == file.nodeid)
        #expect(bench.call(WIRE_FUSE_RMDIR, ShareBench.root, bench.text("d")).error == Errno(rawValue: ENOTEMPTY))
        #expect(bench.call(WIRE_FUSE_UNLINK, d, bench.text("b")).error == nil)
        #expect(bench.call(WIRE_FUSE_RMDIR, ShareBench.root, bench.text("d")).error == nil)
        #expect(throws: Errno.noEntry) { try bench.status("d") }
    }

    @Test(.enabled(if: geteuid() == 0)) func `MKDIR, SYMLINK and LINK, as the driver's user`() throws {
        var description = ShareDescription(tag: "t")
        description.changesNamesThroughEngine = true
        let bench = try ShareBench(description)
        let (file, _) = try bench.create("a")
        #expect(unsafe chmod(bench.path, 0o777) == 0)
        (bench.user, bench.group) = (1234, 2345)
        let made = try bench.makeDirectory("d", mode: 0o750)
        #expect(made.attr.uid == 1234 && made.attr.gid == 2345 && made.attr.mode & 0o7777 == 0o750)
        let target = bench.text("link") + bench.text(String(repeating: "t", count: 3000))
        let link = try bench.call(WIRE_FUSE_SYMLINK, ShareBench.root, target).value(wire_fuse_entry_out.self)
        #expect(link.attr.uid == 1234 && link.attr.size == 3000 && link.attr.mode & S_IFMT == S_IFLNK)
        let hard = bench.bytes(wire_fuse_link_in(oldnodeid: file.nodeid)) + bench.text("b")
        let named = try bench.call(WIRE_FUSE_LINK, made.nodeid, hard).value(wire_fuse_entry_out.self)
        #expect(named.nodeid == file.nodeid && named.attr.nlink == 2)
        for (opcode, body) in [
            (WIRE_FUSE_MKDIR, bench.bytes(wire_fuse_mkdir_in(mode: 0o700, umask: 0)) + bench.text("d")),
            (WIRE_FUSE_SYMLINK, target),
        ] {
            #expect(bench.call(opcode, ShareBench.root, body).error == Errno(rawValue: EEXIST))
        }
        // Not even root's server may do it for somebody who may not.
        bench.user = 4321
        let body = bench.bytes(wire_fuse_mkdir_in(mode: 0o700, umask: 0)) + bench.text("e")
        #expect(bench.call(WIRE_FUSE_MKDIR, made.nodeid, body).error == .permissionDenied)
        // The thread is the server again.
        bench.user = 0
        #expect(try bench.makeDirectory("f", in: made.nodeid).attr.uid == 0)
    }

    /// The kernel takes a thread's user when an operation is handed to it, not when it is queued.
    @Test(.enabled(if: geteuid() == 0))
    func `what the server has queued is not done as the user whose request comes next`() throws {
        var description = ShareDescription(tag: "t")
        description.changesNamesThroughEngine = true
        let bench = try ShareBench(description)
        let (file, _) = try bench.create("a")
        _ = try bench.create("gone")
        #expect(unsafe chmod(bench.path, 0o1777) == 0)
        let gone = bench.start(WIRE_FUSE_UNLINK, ShareBench.root, bench.text("gone"), slot: 1)
        let hard = bench.bytes(wire_fuse_link_in(oldnodeid: file.nodeid)) + bench.text("b")
        let named = bench.start(WIRE_FUSE_LINK, ShareBench.root, hard, slot: 2)
        for step in [gone, named] {
            guard case .pending = step else {
                Issue.record("it is not queued: \(step)")
                return
            }
        }
        bench.user = 1234
        #expect(try bench.makeDirectory("d").attr.uid == 1234)
        bench.user = 0
        let end = monotonicNanoseconds() + 20_000_000_000
        while (try? bench.status("gone")) != nil, monotonicNanoseconds() < end { pause(milliseconds: 1) }
        #expect(throws: Errno.noEntry) { try bench.status("gone") }
        #expect(try bench.status("b").st_ino == bench.status("a").st_ino)
    }

    /// What a worker before has had done is not done again.
    @Test func `what has happened is told, what has not is done`() throws {
        var description = ShareDescription(tag: "t")
        description.changesNamesThroughEngine = true
        let bench = try ShareBench(description)
        let (file, _) = try bench.create("a")
        func adopt(
            _ opcode: Int, _ body: [UInt8], _ result: Int32, _ stage: Stage = .making
        ) -> ShareBench.Reply {
            bench.finishAdopted(
                opcode, ShareBench.root, body, RequestProgress(done: 0, state: UInt64(stage.rawValue)), result: result)
        }
        func directory(_ name: String) -> [UInt8] {
            bench.bytes(wire_fuse_mkdir_in(mode: 0o700, umask: 0)) + bench.text(name)
        }
        _ = try bench.makeDirectory("d")
        let d = try adopt(WIRE_FUSE_MKDIR, directory("d"), 0).value(wire_fuse_entry_out.self)
        #expect(d.nodeid == (try bench.lookUp("d").nodeid))
        #expect(adopt(WIRE_FUSE_MKDIR, directory("d"), -EINTR).error == Errno(rawValue: EEXIST))
        #expect(adopt(WIRE_FUSE_MKDIR, directory("e"), -ECANCELED).error == nil)
        #expect(try bench.lookUp("e").attr.mode & S_IFMT == S_IFDIR)
        let hard = bench.bytes(wire_fuse_link_in(oldnodeid: file.nodeid)) + bench.text("b")
        #expect(bench.call(WIRE_FUSE_LINK, ShareBench.root, hard).error == nil)
        let named = try adopt(WIRE_FUSE_LINK, hard, 0).value(wire_fuse_entry_out.self)
        #expect(named.nodeid == file.nodeid)
        #expect(bench.call(WIRE_FUSE_UNLINK, ShareBench.root, bench.text("b")).error == nil)
        #expect(adopt(WIRE_FUSE_UNLINK, bench.text("b"), 0, .names).error == nil)
        // Whoever asked has written another request over the one that was carried out.
        #expect(adopt(WIRE_FUSE_UNLINK, bench.text("a"), 0).error == .inputOutput)
        #expect(try bench.lookUp("a").nodeid == file.nodeid)
    }

    private func throughEngine() -> ShareDescription {
        var description = ShareDescription(tag: "t")
        description.changesNamesThroughEngine = true
        return description
    }

    private func node(_ bench: ShareBench, _ mode: UInt32, _ name: String) -> [UInt8] {
        bench.bytes(wire_fuse_mknod_in(mode: mode, rdev: 0, umask: 0, padding: 0)) + bench.text(name)
    }

    /// What is in the directory on the host.
    private func names(_ bench: ShareBench) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: bench.path).sorted()
    }

    @Test(.enabled(if: geteuid() == 0)) func `CREATE that must make the file, and MKNOD, as the driver's user`() throws
    {
        let bench = try ShareBench(throughEngine())
        #expect(unsafe chmod(bench.path, 0o777) == 0)
        (bench.user, bench.group) = (1234, 2345)
        let (file, handle) = try bench.create("a", O_RDWR | O_CREAT | O_EXCL, mode: 0o640)
        #expect(file.attr.uid == 1234 && file.attr.gid == 2345 && file.attr.mode & 0o7777 == 0o640)
        #expect(try bench.write(file.nodeid, handle, Array("hello".utf8)) == 5)
        #expect(throws: Errno(rawValue: EEXIST)) { try bench.create("a", O_RDWR | O_CREAT | O_EXCL) }
        // One that cannot be read or written by whoever makes it.
        let (_, other) = try bench.create("b", O_WRONLY | O_CREAT | O_EXCL, mode: 0)
        #expect(other != handle)
        for (mode, name) in [(S_IFREG, "file"), (S_IFIFO, "fifo"), (S_IFSOCK, "socket")] {
            let made = try bench.call(WIRE_FUSE_MKNOD, ShareBench.root, node(bench, mode | 0o620, name))
                .value(wire_fuse_entry_out.self)
            #expect(made.attr.mode == mode | 0o620 && made.attr.uid == 1234 && made.attr.gid == 2345, "\(name)")
            #expect(
                bench.call(WIRE_FUSE_MKNOD, ShareBench.root, node(bench, mode | 0o600, name)).error
                    == Errno(rawValue: EEXIST))
        }
        #expect(try names(bench) == ["a", "b", "fifo", "file", "socket"])
        bench.user = 0
        let closed = try bench.makeDirectory("closed", mode: 0o700).nodeid
        bench.user = 4321
        for mode in [S_IFREG, S_IFIFO] {
            #expect(bench.call(WIRE_FUSE_MKNOD, closed, node(bench, mode | 0o600, "x")).error == .permissionDenied)
        }
        #expect(throws: Errno.permissionDenied) { try bench.create("x", in: closed, O_RDWR | O_CREAT | O_EXCL) }
        // The thread is the server again.
        bench.user = 0
        #expect(try bench.create("c").entry.attr.uid == 0)
    }

    @Test(.enabled(if: geteuid() == 0)) func `a name is replaced by a whiteout, the driver's user's`() throws {
        let bench = try ShareBench(throughEngine())
        #expect(unsafe chmod(bench.path, 0o777) == 0)
        (bench.user, bench.group) = (1234, 2345)
        let (file, _) = try bench.create("a")
        let move =
            bench.bytes(wire_fuse_rename2_in(newdir: ShareBench.root, flags: FuseCall.whiteout, padding: 0))
            + bench.text("a") + bench.text("b")
        #expect(bench.call(WIRE_FUSE_RENAME2, ShareBench.root, move).error == nil)
        #expect(try bench.lookUp("b").nodeid == file.nodeid)
        let left = try bench.lookUp("a").attr
        #expect(left.mode & S_IFMT == S_IFCHR && left.rdev == 0 && left.uid == 1234 && left.gid == 2345)
        let again = bench.finishAdopted(
            WIRE_FUSE_RENAME2, ShareBench.root, move,
            RequestProgress(done: 0, state: UInt64(Stage.names.rawValue)), result: 0)
        #expect(again.error == nil)
        #expect(try bench.lookUp("b").nodeid == file.nodeid)
    }

    @Test func `files that a worker before has made are told, and opened anew`() throws {
        let bench = try ShareBench(throughEngine())
        func adopt(_ opcode: Int, _ body: [UInt8], _ stage: Stage, _ result: Int32) -> ShareBench.Reply {
            // As a loop does before it shows its answers.
            defer { bench.server.tidy() }
            return bench.finishAdopted(
                opcode, ShareBench.root, body, RequestProgress(done: 0, state: UInt64(stage.rawValue)), result: result)
        }
        // The number of a descriptor that was another process's, and may be anything in this one.
        let number = unsafe Glibc.open("/dev/null", O_RDONLY)
        defer { close(number) }
        try bench.put("a")
        let arguments = wire_fuse_create_in(
            flags: UInt32(O_RDWR | O_CREAT | O_EXCL), mode: S_IFREG | 0o600, umask: 0, open_flags: 0)
        let body = bench.bytes(arguments) + bench.text("a")
        let made = adopt(WIRE_FUSE_CREATE, body, .creating, number)
        let node = try made.value(wire_fuse_entry_out.self).nodeid
        let handle = try made.value(wire_fuse_open_out.self, at: MemoryLayout<wire_fuse_entry_out>.size).fh
        #expect(try bench.write(node, handle, Array("hello".utf8)) == 5)
        #expect(try bench.content("a") == "hello")
        // The name is another's file by now, which the driver's user may not open.
        bench.user = 1234
        #expect(adopt(WIRE_FUSE_CREATE, body, .creating, number).error == Errno(rawValue: EEXIST))
        bench.user = 0
        #expect(bench.session.counts.openFiles == 1)
        #expect(adopt(WIRE_FUSE_CREATE, body, .creating, -EEXIST).error == Errno(rawValue: EEXIST))
        #expect(adopt(WIRE_FUSE_CREATE, body, .creating, -ECANCELED).error == Errno(rawValue: EEXIST))
        let file = self.node(bench, S_IFREG | 0o600, "a")
        #expect(try adopt(WIRE_FUSE_MKNOD, file, .makingFile, number).value(wire_fuse_entry_out.self).nodeid == node)
        #expect(unsafe mkfifo("\(bench.path)/fifo", 0o600) == 0)
        let fifo = self.node(bench, S_IFIFO | 0o600, "fifo")
        #expect(
            try adopt(WIRE_FUSE_MKNOD, fifo, .makingSpecial, 0).value(wire_fuse_entry_out.self).attr.mode & S_IFMT
                == S_IFIFO)
        #expect(adopt(WIRE_FUSE_MKNOD, fifo, .makingSpecial, -EEXIST).error == Errno(rawValue: EEXIST))
        // Whoever was told of it has not closed anything that is not his.
        #expect(fcntl(number, F_GETFD) >= 0)
        #expect(try names(bench) == ["a", "fifo"])
    }

    @Test func `the name that a special file has until it gets its own does not stay`() throws {
        var left: (TemporaryDirectoryBox, TableFile)
        do {
            let bench = try ShareBench(throughEngine())
            let step = bench.start(WIRE_FUSE_MKNOD, ShareBench.root, node(bench, S_IFIFO | 0o600, "fifo"))
            guard case .pending = step else {
                Issue.record("it is not queued: \(step)")
                return
            }
            // It dies before the kernel has the operation.
            left = (bench.directory, bench.tables)
        }
        let bench = try ShareBench(throughEngine(), after: left)
        #expect(try names(bench).count == 1)
        #expect(try names(bench)[0].hasPrefix(".baton-"))
        // The very same request.
        bench.unique = 1
        #expect(bench.call(WIRE_FUSE_MKNOD, ShareBench.root, node(bench, S_IFIFO | 0o600, "fifo")).error == nil)
        #expect(try names(bench) == ["fifo"])
    }

    /// The driver leaves the mask to the server (FUSE_DONT_MASK).
    @Test(arguments: [false, true]) func `a program's mask counts where the directory has no default list`(
        throughEngine: Bool
    ) throws {
        var description = self.throughEngine()
        description.changesNamesThroughEngine = throughEngine
        description.hasExtendedAttributes = true
        description.hasACLs = true
        let bench = try ShareBench(description)
        try #require(bench.session.agreement?.has(FuseFeature.serverMasks) == true)
        func modes(in directory: UInt64, _ prefix: String) throws -> [UInt32] {
            let mask: UInt32 = 0o027
            let made = bench.bytes(wire_fuse_mkdir_in(mode: 0o777, umask: mask)) + bench.text("\(prefix)d")
            let special = wire_fuse_mknod_in(mode: S_IFIFO | 0o666, rdev: 0, umask: mask, padding: 0)
            let plain = wire_fuse_mknod_in(mode: S_IFREG | 0o666, rdev: 0, umask: mask, padding: 0)
            var found = [
                try bench.call(WIRE_FUSE_MKDIR, directory, made).value(wire_fuse_entry_out.self),
                try bench.call(WIRE_FUSE_MKNOD, directory, bench.bytes(special) + bench.text("\(prefix)s"))
                    .value(wire_fuse_entry_out.self),
                try bench.call(WIRE_FUSE_MKNOD, directory, bench.bytes(plain) + bench.text("\(prefix)f"))
                    .value(wire_fuse_entry_out.self),
            ]
            for (name, flags) in [("n", O_RDWR | O_CREAT), ("e", O_RDWR | O_CREAT | O_EXCL)] {
                found.append(
                    try bench.create("\(prefix)\(name)", in: directory, flags, mode: 0o666, umask: mask).entry)
            }
            return found.map { $0.attr.mode & 0o7777 }
        }
        #expect(try modes(in: ShareBench.root, "a") == [0o750, 0o640, 0o640, 0o640, 0o640])
        let other = try bench.makeDirectory("other", mode: 0o777).nodeid
        // linux/posix_acl_xattr.h: version 2; user rwx, group rwx, mask rwx, others rwx.
        func entry(_ tag: UInt8) -> [UInt8] { [tag, 0, 7, 0, 0xff, 0xff, 0xff, 0xff] }
        let list: [UInt8] = [2, 0, 0, 0] + entry(1) + entry(4) + entry(0x20)
        let arguments = wire_fuse_setxattr_in(size: UInt32(list.count), flags: 0, setxattr_flags: 0, padding: 0)
        let set = bench.call(
            WIRE_FUSE_SETXATTR, other,
            bench.bytes(arguments) + bench.text("system.posix_acl_default") + list)
        // Not every file system has lists.
        if set.error == .notSupported { return }
        #expect(set.error == nil)
        #expect(try modes(in: other, "b") == [0o777, 0o666, 0o666, 0o666, 0o666])
    }

    /// Where nothing gets another name, what has no operation is made at once.
    @Test(.enabled(if: geteuid() == 0)) func `special files in directories that can only grow`() throws {
        let bench = try ShareBench(throughEngine())
        let elsewhere = TemporaryDirectoryBox(try TemporaryDirectory())
        defer { _ = try? run("chattr", ["-a", bench.path], in: elsewhere.value) }
        let changed = try run("chattr", ["+a", bench.path], in: elsewhere.value)
        guard changed.code == 0 else { return print("not tried: \(changed.output)") }
        #expect(bench.call(WIRE_FUSE_MKNOD, ShareBench.root, node(bench, S_IFIFO | 0o600, "fifo")).error == nil)
        #expect(try names(bench) == ["fifo"])
    }

    @Test func `a name that is squatted keeps nobody from a special file`() throws {
        let bench = try ShareBench(throughEngine())
        let name = UnsafeMutablePointer<CChar>.allocate(capacity: 64)
        defer { unsafe name.deallocate() }
        unsafe bench.session.writePrivateName(of: bench.unique + 1, to: name)
        #expect(unsafe mkdir("\(bench.path)/\(String(cString: name))", 0o700) == 0)
        #expect(bench.call(WIRE_FUSE_MKNOD, ShareBench.root, node(bench, S_IFIFO | 0o600, "fifo")).error == nil)
        #expect(try names(bench).count == 2)
    }
}
