import CLinux
import CWire
import FileTarget
import Glibc
import Platform
import Synchronization
import Testing

/// A driver that is not what it says, and a host's directory that changes under the server.
@Suite("A share: attacks")
struct AttackTests {
    @Test("names that are no names", arguments: ["", ".", "..", "a/b", "/", "/tmp", "../x", "a/"])
    func names(name: String) throws {
        let bench = try ShareBench()
        try bench.put("x")
        #expect(throws: Errno.invalidArgument) { try bench.lookUp(name) }
        #expect(throws: Errno.invalidArgument) { try bench.create(name) }
        #expect(throws: Errno.invalidArgument) { try bench.makeDirectory(name) }
        for opcode in [WIRE_FUSE_UNLINK, WIRE_FUSE_RMDIR] {
            #expect(bench.call(opcode, ShareBench.root, bench.text(name)).error == .invalidArgument)
        }
        let rename = bench.bytes(wire_fuse_rename_in(newdir: 1)) + bench.text("x") + bench.text(name)
        #expect(bench.call(WIRE_FUSE_RENAME, ShareBench.root, rename).error == .invalidArgument)
        let symlink = bench.text(name) + bench.text("target")
        #expect(bench.call(WIRE_FUSE_SYMLINK, ShareBench.root, symlink).error == .invalidArgument)
    }

    @Test("names without an end, with more behind it, or too long")
    func shapes() throws {
        let bench = try ShareBench()
        try bench.put("x")
        #expect(bench.call(WIRE_FUSE_LOOKUP, 1, Array("x".utf8)).error == .invalidArgument)
        #expect(bench.call(WIRE_FUSE_LOOKUP, 1, bench.text("x") + bench.text("y")).error == .invalidArgument)
        #expect(bench.call(WIRE_FUSE_LOOKUP, 1).error == .invalidArgument)
        let long = String(repeating: "n", count: 256)
        #expect(bench.call(WIRE_FUSE_LOOKUP, 1, bench.text(long)).error == Errno(rawValue: ENAMETOOLONG))
        #expect(bench.call(WIRE_FUSE_UNLINK, 1, Array("x\0/../y".utf8) + [0]).error == .invalidArgument)
        #expect(try bench.lookUp("x").nodeid != 0)
    }

    @Test("requests that are too short, too long, or lie about it")
    func malformed() throws {
        let bench = try ShareBench()
        for length in 0..<40 {
            let step = bench.send([UInt8](repeating: 1, count: length))
            #expect(bench.reply(step).isSilent)
        }
        #expect(bench.call(WIRE_FUSE_LOOKUP, 1, bench.text("x"), length: 4096).error == .invalidArgument)
        #expect(bench.call(WIRE_FUSE_LOOKUP, 1, bench.text("x"), length: 39).error == .invalidArgument)
        for opcode in 1...60 where opcode != WIRE_FUSE_INIT && opcode != WIRE_FUSE_DESTROY {
            for length in 0..<20 {
                let reply = bench.call(opcode, 1, [UInt8](repeating: 0xff, count: length))
                let mayFail = ![2, 42, 36].contains(opcode)
                if mayFail, length < 4, ![5, 17, 50].contains(opcode) {
                    #expect(reply.error != nil, "opcode \(opcode)")
                }
            }
        }
        let large = [UInt8](repeating: 0x61, count: 140 << 10)
        #expect(bench.call(WIRE_FUSE_LOOKUP, 1, large).error == Errno(rawValue: E2BIG))
        // WRITE that says more or less than it brings.
        let (file, handle) = try bench.create("a")
        var arguments = wire_fuse_write_in()
        arguments.fh = handle
        arguments.size = 10
        let short = bench.bytes(arguments) + [1, 2, 3]
        #expect(bench.call(WIRE_FUSE_WRITE, file.nodeid, short).error == .invalidArgument)
        arguments.offset = UInt64(Int64.max)
        let far = bench.bytes(arguments) + [UInt8](repeating: 1, count: 10)
        #expect(bench.call(WIRE_FUSE_WRITE, file.nodeid, far).error == .invalidArgument)
        // No room for an answer, or too little.
        #expect(bench.call(WIRE_FUSE_GETATTR, 1, bench.bytes(wire_fuse_getattr_in()), room: 0).isSilent)
        #expect(
            bench.call(WIRE_FUSE_GETATTR, 1, bench.bytes(wire_fuse_getattr_in()), room: 60).error
                == Errno(rawValue: EMSGSIZE))
        #expect(bench.call(WIRE_FUSE_GETATTR, 1, bench.bytes(wire_fuse_getattr_in()), room: 15).isSilent)
    }

    @Test("node ids and handles that are forged or stale")
    func forged() throws {
        let bench = try ShareBench()
        let (file, handle) = try bench.create("a")
        let directory = try bench.openDirectory()
        let ids: [UInt64] = [
            0, 2, file.nodeid ^ 1 << 32, file.nodeid ^ 1, 1 << 32 | 1, .max, 1 << 63, 1023, 1024, UInt64(UInt32.max),
            2 << 32 | 1,
        ]
        for id in ids {
            #expect(throws: Errno(rawValue: ESTALE), "\(id)") { try bench.attributes(of: id) }
            #expect(throws: Errno(rawValue: ESTALE)) { try bench.lookUp("a", in: id) }
            #expect(throws: Errno(rawValue: ESTALE)) { try bench.open(id) }
            bench.forget(id, .max)
        }
        let handles: [UInt64] = [
            0, handle ^ 1 << 32, handle ^ 3, .max, 1 << 63, UInt64(UInt32.max), 255, 256, handle | 1 << 31, directory,
        ]
        for forged in handles {
            #expect(throws: Errno(rawValue: EBADF), "\(forged)") { try bench.read(file.nodeid, forged, count: 1) }
            #expect(throws: Errno(rawValue: EBADF)) { try bench.write(file.nodeid, forged, [1]) }
            if forged != directory {
                #expect(throws: Errno(rawValue: EBADF)) { try bench.release(file.nodeid, forged) }
            }
        }
        var arguments = wire_fuse_read_in()
        (arguments.fh, arguments.size) = (handle, 4096)
        #expect(bench.call(WIRE_FUSE_READDIR, 1, bench.bytes(arguments)).error == Errno(rawValue: EBADF))
        #expect(try bench.write(file.nodeid, handle, [1]) == 1)
    }

    @Test func `a directory is read under its own name alone: that is what a call is judged by`() throws {
        let bench = try ShareBench()
        let made = try bench.makeDirectory("d").nodeid
        let handle = try bench.openDirectory(made)
        var arguments = wire_fuse_read_in()
        (arguments.fh, arguments.size) = (handle, 4096)
        for opcode in [WIRE_FUSE_READDIR, WIRE_FUSE_READDIRPLUS] {
            #expect(bench.call(opcode, 1, bench.bytes(arguments)).error == Errno(rawValue: EBADF))
            #expect(bench.call(opcode, made, bench.bytes(arguments)).error == nil)
        }
    }

    @Test("slots in nobody's use are nobody's, and reads have an end")
    func numbers() throws {
        let bench = try ShareBench()
        let (file, handle) = try bench.create("a")
        try bench.release(file.nodeid, handle)
        // The slot is free now, and its generation 0.
        for _ in 0..<3 {
            #expect(throws: Errno(rawValue: EBADF)) { try bench.read(file.nodeid, handle & 0xffff_ffff, count: 1) }
        }
        let again = try bench.open(file.nodeid)
        #expect(try bench.read(file.nodeid, again, count: 1).isEmpty)
        #expect(throws: Errno.invalidArgument) { try bench.read(file.nodeid, again, count: 1 << 20 + 1) }
        #expect(throws: Errno.invalidArgument) { try bench.read(file.nodeid, again, count: 0xffff_ffff) }
        try bench.release(file.nodeid, again)
    }

    @Test("links in place of directories never lead out", arguments: [FileHandleUse.preferred, .never])
    func links(handles: FileHandleUse) throws {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        let bench = try ShareBench(description)
        let outside = try ShareBench()
        try outside.put("secret", "s")
        unsafe symlink(outside.path, "\(bench.path)/l")
        // Links of tests lead to their own directories only.
        let node = try bench.lookUp("l").nodeid
        #expect(throws: Errno(rawValue: ENOTDIR)) { try bench.lookUp("secret", in: node) }
        #expect(throws: Errno.self) { try bench.create("new", in: node) }
        #expect(throws: Errno.self) { try bench.openDirectory(node) }
        // A directory that the driver knows is exchanged for a link: the driver keeps the directory that it has found.
        let d = try bench.makeDirectory("d").nodeid
        _ = try bench.create("mine", in: d)
        unsafe Glibc.rename("\(bench.path)/d", "\(bench.path)/gone")
        unsafe symlink(outside.path, "\(bench.path)/d")
        #expect(throws: Errno.noEntry) { try bench.lookUp("secret", in: d) }
        #expect(try bench.lookUp("mine", in: d).nodeid != 0)
        _ = try bench.create("made", in: d)
        #expect(try bench.status("gone/made").st_nlink == 1)
        #expect(throws: Errno.noEntry) { try outside.status("made") }
    }

    @Test("a race of links and directories leads nowhere else", arguments: [FileHandleUse.preferred, .never])
    func race(handles: FileHandleUse) throws {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        let bench = try ShareBench(description, nodes: 65536, files: 65536)
        let outside = try ShareBench()
        try outside.put("x", "secret")
        let stop = Stop()
        let path = bench.path
        unsafe mkdir("\(path)/d", 0o755)
        try bench.put("d/x", "open")
        unsafe symlink(outside.path, "\(path)/l")
        let thread = try JoinableThread(name: "exchange") {
            // Exchanges directory and link, as fast as it can.
            while !stop.isSet { _ = unsafe clinux_renameat(AT_FDCWD, "\(path)/d", AT_FDCWD, "\(path)/l", 2) }
        }
        var (found, refused) = (0, 0)
        for _ in 0..<2000 {
            do {
                let node = try bench.lookUp("d").nodeid
                let x = try bench.lookUp("x", in: node)
                #expect(x.attr.size == 4)
                let handle = try bench.open(x.nodeid)
                #expect(try bench.read(x.nodeid, handle, count: 9) == Array("open".utf8))
                try bench.release(x.nodeid, handle)
                found += 1
            } catch {
                refused += 1
            }
        }
        stop.set()
        thread.join()
        #expect(found + refused == 2000)
    }

    @Test("a root that was renamed, or is gone")
    func root() throws {
        let bench = try ShareBench()
        try bench.put("a", "1")
        let away = bench.path + "-away"
        unsafe Glibc.rename(bench.path, away)
        unsafe mkdir(bench.path, 0o755)
        try bench.put("a", "another")
        #expect(try bench.lookUp("a").attr.size == 1)
        _ = try bench.create("b")
        #expect(unsafe access("\(away)/b", F_OK) == 0)
        #expect(unsafe access("\(bench.path)/b", F_OK) != 0)
        for name in ["a", "b"] { unsafe unlink("\(away)/\(name)") }
        unsafe rmdir(away)
        #expect(throws: Errno.noEntry) { try bench.lookUp("a") }
        #expect(throws: Errno.noEntry) { try bench.create("c") }
    }

    @Test("tables that are full refuse, and go on")
    func full() throws {
        let bench = try ShareBench(nodes: 8, files: 4)
        for index in 0..<10 { try bench.put("f\(index)") }
        var known: [UInt64] = []
        for index in 0..<6 { known.append(try bench.lookUp("f\(index)").nodeid) }
        #expect(throws: Errno(rawValue: ENFILE)) { try bench.lookUp("f6") }
        #expect(try bench.lookUp("f0").nodeid == known[0])
        bench.forget(known[1])
        let node = try bench.lookUp("f6").nodeid
        var handles: [UInt64] = []
        for _ in 0..<3 { handles.append(try bench.open(node)) }
        #expect(throws: Errno(rawValue: ENFILE)) { try bench.open(node) }
        try bench.release(node, handles[0])
        #expect(try bench.open(node) != handles[0])
    }
}

private final class Stop: Sendable {
    private let flag = Atomic<Bool>(false)
    var isSet: Bool { flag.load(ordering: .relaxed) }
    func set() { flag.store(true, ordering: .relaxed) }
}
