import CWire
import Custody
import Glibc
import Platform
import Testing

@testable import FileTarget

@Suite("A share: changing")
struct ChangingTests {
    @Test("files are made, written and removed", arguments: [FileHandleUse.preferred, .never])
    func files(handles: FileHandleUse) throws {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        let bench = try ShareBench(description)
        let (entry, handle) = try bench.create("a", mode: 0o640)
        #expect(entry.attr.mode == S_IFREG | 0o640)
        let data = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        #expect(try bench.write(entry.nodeid, handle, data) == data.count)
        #expect(try bench.write(entry.nodeid, handle, [1, 2, 3], at: 100_000) == 3)
        #expect(try bench.read(entry.nodeid, handle, at: 99_999, count: 100) == [data[99_999], 1, 2, 3])
        #expect(try bench.attributes(of: entry.nodeid).size == 100_003)
        var sync = wire_fuse_fsync_in()
        sync.fh = handle
        #expect(bench.call(WIRE_FUSE_FSYNC, entry.nodeid, bench.bytes(sync)).error == nil)
        sync.fsync_flags = 1
        #expect(bench.call(WIRE_FUSE_FSYNC, entry.nodeid, bench.bytes(sync)).error == nil)
        // Unlinked, and open: it goes on.
        #expect(bench.call(WIRE_FUSE_UNLINK, ShareBench.root, bench.text("a")).error == nil)
        #expect(throws: Errno.noEntry) { try bench.lookUp("a") }
        #expect(try bench.write(entry.nodeid, handle, [9], at: 0) == 1)
        #expect(try bench.read(entry.nodeid, handle, count: 1) == [9])
        try bench.release(entry.nodeid, handle)
        #expect(bench.call(WIRE_FUSE_UNLINK, ShareBench.root, bench.text("a")).error == .noEntry)
    }

    @Test("CREATE opens what is there, if that is a file")
    func createExisting() throws {
        let bench = try ShareBench()
        try bench.put("a", "hello")
        let (entry, handle) = try bench.create("a")
        #expect(try bench.read(entry.nodeid, handle, count: 10) == Array("hello".utf8))
        #expect(throws: Errno(rawValue: EEXIST)) { try bench.create("a", O_RDWR | O_EXCL) }
        _ = try bench.create("a", O_RDWR | O_TRUNC)
        #expect(try bench.status("a").st_size == 0)
        unsafe mkfifo("\(bench.path)/f", 0o644)
        #expect(throws: Errno(rawValue: ENXIO)) { try bench.create("f") }
        unsafe symlink("a", "\(bench.path)/l")
        #expect(throws: Errno(rawValue: ELOOP)) { try bench.create("l") }
        let nodes = bench.session.counts.nodes
        #expect(nodes == 1)
    }

    @Test("directories, links, special files, renames")
    func names() throws {
        let bench = try ShareBench()
        let d = try bench.makeDirectory("d", mode: 0o700)
        #expect(d.attr.mode == S_IFDIR | 0o700)
        #expect(throws: Errno(rawValue: EEXIST)) { try bench.makeDirectory("d") }
        let e = try bench.makeDirectory("e", in: d.nodeid)
        #expect(
            bench.call(WIRE_FUSE_RMDIR, ShareBench.root, bench.text("d")).error == Errno(rawValue: ENOTEMPTY))
        let link = try bench.call(WIRE_FUSE_SYMLINK, e.nodeid, bench.text("s") + bench.text("any/where/"))
            .value(wire_fuse_entry_out.self)
        #expect(link.attr.mode & S_IFMT == S_IFLNK && link.attr.size == 10)
        let device = wire_fuse_mknod_in(mode: S_IFCHR | 0o600, rdev: 0x103, umask: 0, padding: 0)
        let null = try bench.call(WIRE_FUSE_MKNOD, e.nodeid, bench.bytes(device) + bench.text("null"))
            .value(wire_fuse_entry_out.self)
        #expect(null.attr.mode == S_IFCHR | 0o600 && null.attr.rdev == 0x103)
        #expect(throws: Errno(rawValue: ENXIO)) { try bench.open(null.nodeid, O_RDWR) }
        let (file, handle) = try bench.create("a", in: e.nodeid)
        try bench.release(file.nodeid, handle)
        let hard = bench.bytes(wire_fuse_link_in(oldnodeid: file.nodeid)) + bench.text("b")
        let second = try bench.call(WIRE_FUSE_LINK, ShareBench.root, hard).value(wire_fuse_entry_out.self)
        #expect(second.nodeid == file.nodeid && second.attr.nlink == 2)
        func rename(_ name: String, _ newName: String, _ flags: UInt32 = 0) -> Errno? {
            let arguments = wire_fuse_rename2_in(newdir: ShareBench.root, flags: flags, padding: 0)
            let body = bench.bytes(arguments) + bench.text(name) + bench.text(newName)
            return bench.call(WIRE_FUSE_RENAME2, e.nodeid, body).error
        }
        #expect(rename("a", "b", 1) == Errno(rawValue: EEXIST))
        #expect(rename("s", "b", 2) == nil)
        #expect(try bench.lookUp("b").attr.mode & S_IFMT == S_IFLNK)
        #expect(try bench.lookUp("s", in: e.nodeid).nodeid == file.nodeid)
        #expect(rename("s", "c", 8) == .invalidArgument)
        #expect(rename("null", "c", 4) == nil)
        // A whiteout in its place: device 0, 0.
        #expect(try bench.lookUp("null", in: e.nodeid).attr.rdev == 0)
        let old = bench.bytes(wire_fuse_rename_in(newdir: ShareBench.root)) + bench.text("d") + bench.text("dd")
        #expect(bench.call(WIRE_FUSE_RENAME, ShareBench.root, old).error == nil)
        // Nodes go where their files go.
        #expect(try bench.lookUp("a", in: e.nodeid).nodeid == file.nodeid)
    }

    @Test("attributes are set", arguments: [FileHandleUse.preferred, .never])
    func attributes(handles: FileHandleUse) throws {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        let bench = try ShareBench(description)
        let (file, handle) = try bench.create("a")
        func set(_ valid: UInt32, _ change: (inout wire_fuse_setattr_in) -> Void) throws -> wire_fuse_attr {
            var arguments = wire_fuse_setattr_in()
            arguments.valid = valid
            change(&arguments)
            return try bench.call(WIRE_FUSE_SETATTR, file.nodeid, bench.bytes(arguments))
                .value(wire_fuse_attr_out.self).attr
        }
        #expect(try set(1) { $0.mode = S_IFREG | 0o4711 }.mode == S_IFREG | 0o4711)
        let owned = try set(6) { ($0.uid, $0.gid) = (12, 13) }
        #expect(owned.uid == 12 && owned.gid == 13)
        // The kernel takes the set-user-ID bit with the owner.
        #expect(owned.mode == S_IFREG | 0o711)
        #expect(try set(8) { $0.size = 1 << 20 }.size == 1 << 20)
        #expect(try set(8 | 64) { ($0.size, $0.fh) = (77, handle) }.size == 77)
        let times = try set(16 | 32) { ($0.atime, $0.mtime, $0.atimensec) = (1000, 2000, 5) }
        #expect(times.atime == 1000 && times.mtime == 2000 && times.atimensec == 5)
        #expect(try set(32 | 256) { $0.mtime = 1 }.mtime > 1_700_000_000)
        #expect(throws: Errno(rawValue: EFBIG)) { try set(8) { $0.size = 1 << 63 } }
        // Of who may not keep them, set-ID bits go with the size.
        _ = try set(1) { $0.mode = 0o4755 }
        #expect(try set(8) { $0.size = 10 }.mode & 0o7777 == 0o4755)
        #expect(try set(8 | 2048) { $0.size = 11 }.mode & 0o7777 == 0o755)
        _ = try set(1) { $0.mode = 0o6755 }
        _ = try bench.write(file.nodeid, handle, [1])
        #expect(try bench.attributes(of: file.nodeid).mode & 0o7777 == 0o6755)
        _ = try bench.write(file.nodeid, handle, [1], flags: 4)
        #expect(try bench.attributes(of: file.nodeid).mode & 0o7777 == 0o755)
    }

    @Test("new files belong to who asks for them")
    func owners() throws {
        let bench = try ShareBench()
        chmodRoot(bench)
        (bench.user, bench.group) = (1000, 1001)
        let (file, _) = try bench.create("a")
        #expect(file.attr.uid == 1000 && file.attr.gid == 1001)
        #expect(try bench.makeDirectory("d").attr.uid == 1000)
        let link = try bench.call(WIRE_FUSE_SYMLINK, ShareBench.root, bench.text("s") + bench.text("t"))
            .value(wire_fuse_entry_out.self)
        #expect(link.attr.uid == 1000 && link.attr.gid == 1001)
        bench.user = 2000
        // The host says no, too.
        let d = try bench.lookUp("d").nodeid
        #expect(throws: Errno.permissionDenied) { try bench.create("x", in: d) }
        bench.user = 0
        bench.group = 0
        #expect(try bench.create("r").entry.attr.uid == 0)
    }

    /// Everybody may make files in the root.
    private func chmodRoot(_ bench: ShareBench) { unsafe chmod(bench.path, 0o777) }

    @Test("a directory that gives its group to new files: for members of that group")
    func supplementaryGroups() throws {
        let bench = try ShareBench()
        let d = try bench.makeDirectory("d", mode: 0o770)
        unsafe chown("\(bench.path)/d", 500, 600)
        unsafe chmod("\(bench.path)/d", 0o2770)
        (bench.user, bench.group) = (1000, 1000)
        #expect(throws: Errno.permissionDenied) { try bench.create("x", in: d.nodeid) }
        // struct fuse_ext_header, fuse_supp_groups
        let groups =
            bench.bytes(wire_fuse_ext_header(size: 16, type: 32)) + bench.bytes(UInt32(1)) + bench.bytes(UInt32(600))
        let (file, _) = try bench.create("x", in: d.nodeid, extras: groups)
        #expect(file.attr.uid == 1000 && file.attr.gid == 600)
        #expect(throws: Errno.permissionDenied) { try bench.create("y", in: d.nodeid) }
    }

    @Test("users and groups are mapped")
    func mappedIDs() throws {
        var description = ShareDescription(tag: "t")
        description.userIDs = try IDMap(parsing: "0:100000:1000")
        description.groupIDs = try IDMap(parsing: ":0:200000:1000:")
        let bench = try ShareBench(description)
        chmodRoot(bench)
        (bench.user, bench.group) = (5, 6)
        let (file, _) = try bench.create("a")
        #expect(file.attr.uid == 5 && file.attr.gid == 6)
        let host = try bench.status("a")
        #expect(host.st_uid == 100_005 && host.st_gid == 200_006)
        try bench.put("b")
        #expect(try bench.lookUp("b").attr.uid == 65534)
        bench.user = 1000
        #expect(throws: Errno(rawValue: EOVERFLOW)) { try bench.create("c") }
    }

    /// The driver's root is not the host's.
    @Test("files of users that the driver has not are reached as others reach them")
    func strangers() throws {
        var description = ShareDescription(tag: "t")
        description.userIDs = try IDMap(parsing: "0:100000:1000")
        description.groupIDs = description.userIDs
        description.hasExtendedAttributes = true
        description.hasPOSIXLocks = true
        let bench = try ShareBench(description)
        (bench.user, bench.group) = (0, 0)
        chmodRoot(bench)
        for (name, mode) in [("secret", mode_t(0o600)), ("public", 0o644), ("shared", 0o666)] {
            try bench.put(name, "hello")
            #expect(unsafe chmod("\(bench.path)/\(name)", mode) == 0)
        }
        let refused = Errno.permissionDenied
        let secret = try bench.lookUp("secret").nodeid
        #expect(throws: refused) { try bench.open(secret) }
        #expect(throws: refused) { try bench.create("secret") }
        let open = try bench.lookUp("public").nodeid
        #expect(try bench.read(open, try bench.open(open), count: 9) == Array("hello".utf8))
        #expect(throws: refused) { try bench.open(open, O_RDWR) }
        #expect(throws: refused) { try bench.open(open, O_RDONLY | O_TRUNC) }
        func change(_ node: UInt64, _ valid: UInt32) -> Errno? {
            var arguments = wire_fuse_setattr_in()
            (arguments.valid, arguments.mode) = (valid, 0o666)
            return bench.call(WIRE_FUSE_SETATTR, node, bench.bytes(arguments)).error
        }
        let size = UInt32(1) << UInt32(WIRE_FUSE_FATTR_SIZE_BIT)
        let mode = UInt32(1) << UInt32(WIRE_FUSE_FATTR_MODE_BIT)
        #expect(change(open, mode) == .notPermitted && change(open, size) == refused)
        let shared = try bench.lookUp("shared").nodeid
        _ = try bench.write(shared, try bench.open(shared, O_RDWR), Array("HELLO".utf8))
        #expect(change(shared, size) == nil && change(shared, mode) == .notPermitted)
        // A directory of theirs.
        #expect(unsafe mkdir("\(bench.path)/closed", 0o700) == 0 && mkdir("\(bench.path)/sticky", 0o755) == 0)
        #expect(unsafe chmod("\(bench.path)/sticky", 0o1777) == 0)
        let closed = try bench.lookUp("closed").nodeid
        #expect(throws: refused) { try bench.lookUp("x", in: closed) }
        #expect(throws: refused) { try bench.create("x", in: closed) }
        let sticky = try bench.lookUp("sticky").nodeid
        let (own, ownHandle) = try bench.create("x", in: sticky)
        #expect(own.attr.uid == 0 && change(own.nodeid, mode) == nil)
        try bench.put("sticky/theirs")
        #expect(bench.call(WIRE_FUSE_UNLINK, sticky, bench.text("theirs")).error == .notPermitted)
        #expect(bench.call(WIRE_FUSE_UNLINK, sticky, bench.text("x")).error == nil)
        // What is allowed with one file is not done to another.
        var take = wire_fuse_setattr_in()
        let handle = try bench.open(open)
        take.valid = UInt32(1) << UInt32(WIRE_FUSE_FATTR_UID_BIT) | 1 << UInt32(WIRE_FUSE_FATTR_FH_BIT)
        take.fh = handle
        #expect(bench.call(WIRE_FUSE_SETATTR, own.nodeid, bench.bytes(take)).error == Errno(rawValue: EBADF))
        #expect(bench.call(WIRE_FUSE_SETATTR, open, bench.bytes(take)).error == .notPermitted)
        // A lock needs what opening the file for it would need.
        var lock = wire_fuse_lk_in()
        (lock.owner, lock.lk) = (1, wire_fuse_file_lock(start: 0, end: 9, type: UInt32(F_WRLCK), pid: 1))
        #expect(bench.call(WIRE_FUSE_SETLK, open, bench.bytes(lock)).error == refused)
        lock.lk.type = UInt32(F_RDLCK)
        #expect(bench.call(WIRE_FUSE_SETLK, secret, bench.bytes(lock)).error == refused)
        try bench.release(own.nodeid, ownHandle)
    }

    @Test("nothing of a read-only share changes")
    func readOnly() throws {
        var description = ShareDescription(tag: "t")
        description.isReadOnly = true
        let bench = try ShareBench(description)
        try bench.put("a", "hello")
        let a = try bench.lookUp("a").nodeid
        let refused = Errno(rawValue: EROFS)
        #expect(throws: refused) { try bench.create("b") }
        #expect(throws: refused) { try bench.makeDirectory("d") }
        #expect(throws: refused) { try bench.open(a, O_RDWR) }
        #expect(throws: refused) { try bench.open(a, O_RDONLY | O_TRUNC) }
        #expect(bench.call(WIRE_FUSE_UNLINK, ShareBench.root, bench.text("a")).error == refused)
        #expect(bench.call(WIRE_FUSE_SETATTR, a, bench.bytes(wire_fuse_setattr_in())).error == refused)
        let handle = try bench.open(a)
        #expect(throws: refused) { try bench.write(a, handle, [1]) }
        #expect(try bench.read(a, handle, count: 9) == Array("hello".utf8))
    }

    @Test("space, copies, nameless files")
    func rest() throws {
        let bench = try ShareBench()
        let (file, handle) = try bench.create("a")
        let space = wire_fuse_fallocate_in(fh: handle, offset: 0, length: 1 << 20, mode: 0, padding: 0)
        #expect(bench.call(WIRE_FUSE_FALLOCATE, file.nodeid, bench.bytes(space)).error == nil)
        #expect(try bench.attributes(of: file.nodeid).size == 1 << 20)
        _ = try bench.write(file.nodeid, handle, Array("hello".utf8))
        let (other, target) = try bench.create("b")
        var copy = wire_fuse_copy_file_range_in()
        (copy.fh_in, copy.fh_out, copy.nodeid_out, copy.len, copy.off_out) = (handle, target, other.nodeid, 5, 2)
        let copied = bench.call(WIRE_FUSE_COPY_FILE_RANGE, file.nodeid, bench.bytes(copy))
        #expect(try copied.value(wire_fuse_write_out.self).size == 5)
        #expect(try bench.content("b") == "\0\0hello")
        let arguments = wire_fuse_create_in(flags: UInt32(O_RDWR), mode: S_IFREG | 0o600, umask: 0, open_flags: 0)
        let reply = bench.call(WIRE_FUSE_TMPFILE, ShareBench.root, bench.bytes(arguments) + bench.text("/"))
        let nameless = try reply.value(wire_fuse_entry_out.self)
        #expect(nameless.attr.nlink == 0)
        let hard = bench.bytes(wire_fuse_link_in(oldnodeid: nameless.nodeid)) + bench.text("named")
        #expect(bench.call(WIRE_FUSE_LINK, ShareBench.root, hard).error == nil)
        #expect(try bench.lookUp("named").nodeid == nameless.nodeid)
        #expect(bench.call(WIRE_FUSE_SYNCFS, ShareBench.root, bench.bytes(UInt64(0))).error == nil)
        #expect(bench.call(WIRE_FUSE_DESTROY, 0).error == nil)
        #expect(bench.session.counts == ShareCounts())
    }
}

/// The same on the engine's own way.
