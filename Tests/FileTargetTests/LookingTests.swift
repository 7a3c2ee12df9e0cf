import CWire
import FileTarget
import Glibc
import Platform
import Testing

@Suite("A share: looking and reading")
struct LookingTests {
    @Test("INIT agrees on what both can do", arguments: [31, 36, 38, 45, 99] as [UInt32])
    func initialization(minor: UInt32) throws {
        var description = ShareDescription(tag: "t")
        description.writesBack = true
        let bench = try ShareBench(description, initializes: false)
        #expect(throws: Errno.inputOutput) { try bench.lookUp("x") }
        let answer = try bench.initialize(.max, minor: minor).value(wire_fuse_init_out.self)
        #expect(answer.major == 7 && answer.minor == 45)
        #expect(answer.max_write == 1 << 20 && answer.max_pages == 256)
        #expect(answer.flags & (1 << UInt32(WIRE_FUSE_WRITEBACK_CACHE_BIT)) != 0)
        #expect(answer.flags & (1 << UInt32(WIRE_FUSE_POSIX_LOCKS_BIT)) == 0)
        #expect(bench.session.agreement?.minor == min(minor, 45))
        #expect(bench.session.agreement!.flags >> 32 & 1 << 2 != 0)
    }

    @Test("a driver that is too old, too new or offers little")
    func otherDrivers() throws {
        let bench = try ShareBench(initializes: false)
        #expect(bench.initialize(.max, minor: 26).error == Errno(rawValue: EPROTO))
        let newer = try bench.initialize(.max, major: 8).value(wire_fuse_init_out.self)
        #expect(newer.major == 7)
        #expect(bench.session.agreement == nil)
        let little = try bench.initialize(0).value(wire_fuse_init_out.self)
        #expect(little.flags == 0 && little.flags2 == 0 && little.max_pages == 0 && little.max_write == 128 << 10)
    }

    @Test("names are found, and told what they are", arguments: [FileHandleUse.preferred, .never])
    func lookUp(handles: FileHandleUse) throws {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        let bench = try ShareBench(description)
        try bench.put("a", "hello")
        unsafe mkdir("\(bench.path)/d", 0o755)
        unsafe symlink("d/nothing", "\(bench.path)/l")
        unsafe mkfifo("\(bench.path)/f", 0o644)
        let a = try bench.lookUp("a")
        #expect(a.attr.size == 5 && a.attr.mode == S_IFREG | 0o644 && a.attr.nlink == 1)
        #expect(a.attr.ino == UInt64(try bench.status("a").st_ino))
        #expect(a.entry_valid == 1)
        #expect(try bench.lookUp("a").nodeid == a.nodeid)
        #expect(try bench.lookUp("d").attr.mode & S_IFMT == S_IFDIR)
        let l = try bench.lookUp("l")
        #expect(l.attr.mode & S_IFMT == S_IFLNK)
        #expect(bench.call(WIRE_FUSE_READLINK, l.nodeid).bytes == Array("d/nothing".utf8))
        #expect(bench.call(WIRE_FUSE_READLINK, a.nodeid).error == .invalidArgument)
        #expect(throws: Errno.noEntry) { try bench.lookUp("nothing") }
        #expect(throws: Errno(rawValue: ENOTDIR)) { try bench.lookUp("x", in: a.nodeid) }
        // A link is no directory, and a FIFO is not opened.
        #expect(throws: Errno(rawValue: ENOTDIR)) { try bench.lookUp("passwd", in: l.nodeid) }
        #expect(throws: Errno(rawValue: ELOOP)) { try bench.open(l.nodeid) }
        #expect(throws: Errno(rawValue: ENXIO)) { try bench.open(try bench.lookUp("f").nodeid) }
        #expect(try bench.attributes(of: a.nodeid).size == 5)
        #expect(try bench.attributes(of: ShareBench.root).mode & S_IFMT == S_IFDIR)
        #expect(bench.session.counts.nodes == 4)
    }

    @Test("two names of one file are one node; a new file of the same name is another")
    func identity() throws {
        let bench = try ShareBench()
        try bench.put("a", "1")
        unsafe Glibc.link("\(bench.path)/a", "\(bench.path)/b")
        let a = try bench.lookUp("a")
        #expect(try bench.lookUp("b").nodeid == a.nodeid)
        unsafe unlink("\(bench.path)/a")
        try bench.put("a", "22")
        let other = try bench.lookUp("a")
        #expect(other.nodeid != a.nodeid && other.attr.size == 2)
        #expect(try bench.attributes(of: a.nodeid).size == 1)
        unsafe unlink("\(bench.path)/b")
        bench.server.tidy()
    }

    @Test("what is forgotten is unknown", arguments: [FileHandleUse.preferred, .never])
    func forget(handles: FileHandleUse) throws {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        let bench = try ShareBench(description)
        try bench.put("a")
        let a = try bench.lookUp("a").nodeid
        _ = try bench.lookUp("a")
        bench.forget(a)
        #expect(try bench.attributes(of: a).nlink == 1)
        bench.forget(a)
        #expect(throws: Errno(rawValue: ESTALE)) { try bench.attributes(of: a) }
        bench.forget(a)
        bench.forget(ShareBench.root, 100)
        #expect(try bench.attributes(of: ShareBench.root).nlink > 0)
        let again = try bench.lookUp("a").nodeid
        #expect(again != a)
        let batch =
            bench.bytes(wire_fuse_batch_forget_in(count: 2, dummy: 0))
            + bench.bytes(wire_fuse_forget_one(nodeid: again, nlookup: 1))
            + bench.bytes(wire_fuse_forget_one(nodeid: a, nlookup: 1))
        #expect(bench.call(WIRE_FUSE_BATCH_FORGET, 0, batch, room: 0).isSilent)
        #expect(bench.session.counts.nodes == 0)
    }

    @Test("a file is read", arguments: [FileHandleUse.preferred, .never])
    func read(handles: FileHandleUse) throws {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        let bench = try ShareBench(description)
        let text = String(repeating: "0123456789abcdef", count: 1000)
        try bench.put("a", text)
        let a = try bench.lookUp("a").nodeid
        let handle = try bench.open(a)
        #expect(try bench.read(a, handle, count: 16) == Array("0123456789abcdef".utf8))
        #expect(try bench.read(a, handle, at: 3, count: 1 << 20) == Array(text.utf8.dropFirst(3)))
        #expect(try bench.read(a, handle, at: 16000, count: 4096) == [])
        #expect(try bench.read(a, handle, at: 1 << 40, count: 4096) == [])
        #expect(try bench.read(a, handle, count: 0) == [])
        #expect(bench.session.counts.openFiles == 1)
        try bench.release(a, handle)
        #expect(bench.session.counts.openFiles == 0)
        #expect(throws: Errno(rawValue: EBADF)) { try bench.read(a, handle, count: 1) }
        #expect(throws: Errno(rawValue: EBADF)) { try bench.release(a, handle) }
        #expect(throws: Errno(rawValue: EBADF)) { try bench.write(a, try bench.open(a), [1]) }
    }

    @Test("a directory is read in any steps", arguments: [96, 256, 4096, 65536], [false, true])
    func directory(size: Int, plus: Bool) throws {
        let bench = try ShareBench()
        var names: Set<String> = [".", ".."]
        for index in 0..<300 {
            let name = "f\(index)" + String(repeating: "x", count: index % 40)
            try bench.put(name)
            names.insert(name)
        }
        let size = plus ? max(size, 256) : size
        let found = try bench.list(size: size, plus: plus)
        #expect(found.count == names.count)
        #expect(Set(found.map(\.name)) == names)
        #expect(bench.session.counts.nodes == (plus ? 300 : 0))
        if plus {
            for (name, node) in found where node != 0 { #expect(try bench.lookUp(name).nodeid == node) }
            for (name, node) in found where node == 0 { #expect(name.allSatisfy { $0 == "." }) }
        }
    }

    @Test("statfs, access, statx, lseek")
    func others() throws {
        let bench = try ShareBench()
        try bench.put("a", "hello")
        let a = try bench.lookUp("a").nodeid
        let space = try bench.call(WIRE_FUSE_STATFS, ShareBench.root).value(wire_fuse_kstatfs.self)
        #expect(space.blocks > 0 && space.namelen == 255)
        var arguments = wire_fuse_statx_in()
        arguments.sx_mask = .max
        let extended = try bench.call(WIRE_FUSE_STATX, a, bench.bytes(arguments)).value(wire_fuse_statx_out.self)
        #expect(extended.stat.size == 5 && extended.stat.mode == UInt16(S_IFREG | 0o644))
        bench.user = 1234
        bench.group = 1234
        #expect(bench.call(WIRE_FUSE_ACCESS, a, bench.bytes(wire_fuse_access_in(mask: 4, padding: 0))).error == nil)
        #expect(
            bench.call(WIRE_FUSE_ACCESS, a, bench.bytes(wire_fuse_access_in(mask: 2, padding: 0))).error
                == .permissionDenied)
        let handle = try bench.open(a)
        let hole = wire_fuse_lseek_in(fh: handle, offset: 0, whence: 4, padding: 0)
        #expect(try bench.call(WIRE_FUSE_LSEEK, a, bench.bytes(hole)).value(UInt64.self) == 5)
        #expect(bench.call(WIRE_FUSE_IOCTL, a, bench.bytes(wire_fuse_ioctl_in())).error == Errno(rawValue: ENOTTY))
        #expect(bench.call(WIRE_FUSE_POLL, a).error == .noSuchCall)
        #expect(bench.call(4095, a).error == .noSuchCall)
    }
}
