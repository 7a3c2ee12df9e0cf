import CWire
import Glibc
import Platform
import TestSupport
import Testing

@testable import FileTarget

/// A worker dies when it has carried a request out and nobody has seen the answer. Its successor carries the very same
/// request out again, and the tables are as if it had been done once.
@Suite("A share: what a request does to the tables is done once, whoever dies")
struct EffectTests {
    /// A share, and a driver that has asked for something.
    private final class Scene {
        let custody = TestCustody()
        private(set) var bench: ShareBench
        private let description: ShareDescription

        init(_ handles: FileHandleUse, through engine: Bool = false) throws {
            var description = ShareDescription(tag: "t")
            description.fileHandles = handles
            description.hasExtendedAttributes = true
            description.changesNamesThroughEngine = engine
            self.description = description
            bench = try ShareBench(description, custody: custody)
        }

        /// A worker carries a request out, and dies; its successor does, too. Done three times in all.
        func ask(_ opcode: Int, _ node: UInt64, _ body: [UInt8], room: Int = FuseRequest.answerBytes) throws
            -> ShareBench.Reply
        {
            var reply = bench.call(opcode, node, body, room: room)
            for _ in 0..<2 {
                let unique = bench.unique
                let before = (bench.directory, bench.tables)
                // The loops of a worker that is dead use nothing any more.
                bench = try ShareBench(description, custody: custody, after: before)
                for slot in custody.slots {
                    if bench.session.wantsFile(slot: slot) {
                        _ = bench.session.restore(try custody.duplicate(slot), slot: slot)
                    }
                }
                bench.unique = unique - 1
                reply = bench.call(opcode, node, body, room: room)
            }
            return reply
        }

        func lookups(_ node: UInt64) -> UInt64? {
            bench.session.withNodes { nodes in nodes.slot(of: node).map { nodes.lookups(of: $0) } }
        }
    }

    @Test(arguments: [FileHandleUse.preferred, .never]) func `LOOKUP counts once`(handles: FileHandleUse) throws {
        let scene = try Scene(handles)
        try scene.bench.put("a")
        let found = try scene.ask(WIRE_FUSE_LOOKUP, ShareBench.root, scene.bench.text("a"))
            .value(wire_fuse_entry_out.self)
        #expect(scene.lookups(found.nodeid) == 1 && scene.bench.session.counts.nodes == 1)
        // Of one that is known, too.
        let again = try scene.ask(WIRE_FUSE_LOOKUP, ShareBench.root, scene.bench.text("a"))
            .value(wire_fuse_entry_out.self)
        #expect(again.nodeid == found.nodeid && scene.lookups(found.nodeid) == 2)
        // Whoever has answered it has nothing to take back.
        #expect(try scene.bench.lookUp("a").nodeid == found.nodeid && scene.lookups(found.nodeid) == 3)
    }

    @Test(arguments: [FileHandleUse.preferred, .never]) func `what was opened and never told is closed`(
        handles: FileHandleUse
    ) throws {
        let scene = try Scene(handles)
        let bench = scene.bench
        let (file, handle) = try bench.create("a")
        #expect(bench.call(WIRE_FUSE_FLUSH, file.nodeid, bench.bytes(wire_fuse_flush_in())).error != nil)
        let arguments = bench.bytes(wire_fuse_open_in(flags: UInt32(O_RDWR), open_flags: 0))
        let opened = try scene.ask(WIRE_FUSE_OPEN, file.nodeid, arguments).value(wire_fuse_open_out.self).fh
        #expect(opened != handle && scene.bench.session.counts.openFiles == 2)
        #expect(try scene.bench.write(file.nodeid, opened, Array("x".utf8)) == 1)
        #expect(try scene.bench.write(file.nodeid, handle, Array("y".utf8)) == 1)
        let directory = try scene.ask(WIRE_FUSE_OPENDIR, ShareBench.root, scene.bench.bytes(wire_fuse_open_in()))
        #expect(directory.error == nil && scene.bench.session.counts.openFiles == 3)
        let nameless = wire_fuse_create_in(flags: UInt32(O_RDWR), mode: S_IFREG | 0o600, umask: 0, open_flags: 0)
        let temporary = try scene.ask(
            WIRE_FUSE_TMPFILE, ShareBench.root, scene.bench.bytes(nameless) + scene.bench.text(""))
        if temporary.error == nil { #expect(scene.bench.session.counts.openFiles == 4) }
        scene.bench.session.reset()
        #expect(scene.custody.slots == [])
    }

    @Test(arguments: [FileHandleUse.preferred, .never]) func `CREATE counts, opens and keeps once`(
        handles: FileHandleUse
    ) throws {
        let scene = try Scene(handles)
        let arguments = wire_fuse_create_in(
            flags: UInt32(O_RDWR | O_CREAT), mode: S_IFREG | 0o600, umask: 0, open_flags: 0)
        let body = scene.bench.bytes(arguments) + scene.bench.text("a")
        let made = try scene.ask(WIRE_FUSE_CREATE, ShareBench.root, body)
        let node = try made.value(wire_fuse_entry_out.self).nodeid
        let handle = try made.value(wire_fuse_open_out.self, at: MemoryLayout<wire_fuse_entry_out>.size).fh
        #expect(scene.lookups(node) == 1 && scene.bench.session.counts.openFiles == 1)
        #expect(try scene.bench.write(node, handle, Array("x".utf8)) == 1)
        scene.bench.session.reset()
        #expect(scene.custody.slots == [])
    }

    @Test(arguments: [FileHandleUse.preferred, .never]) func `READDIRPLUS counts each of its nodes once`(
        handles: FileHandleUse
    ) throws {
        let scene = try Scene(handles)
        for number in 0..<200 { try scene.bench.put("file-\(number)") }
        let known = try scene.bench.lookUp("file-7").nodeid
        let handle = try scene.bench.openDirectory()
        var (told, offset): ([UInt64], UInt64) = ([], 0)
        while true {
            var arguments = wire_fuse_read_in()
            (arguments.fh, arguments.offset, arguments.size) = (handle, offset, 1 << 17)
            let reply = try scene.ask(WIRE_FUSE_READDIRPLUS, ShareBench.root, scene.bench.bytes(arguments))
            try reply.check()
            if reply.bytes.isEmpty { break }
            var place = 0
            let start = told.count
            while place < reply.bytes.count {
                let node = try reply.value(wire_fuse_entry_out.self, at: place).nodeid
                let entry = try reply.value(wire_fuse_dirent.self, at: place + MemoryLayout<wire_fuse_entry_out>.size)
                if node != 0 { told.append(node) }
                offset = entry.off
                place += (Int(WIRE_FUSE_NAME_OFFSET_DIRENTPLUS) + Int(entry.namelen) + 7) & ~7
            }
            #expect(told.count - start <= RequestEffects.listCount)
        }
        #expect(told.count == 200 && Set(told).count == 200)
        for node in told { #expect(scene.lookups(node) == (node == known ? 2 : 1)) }
        #expect(scene.bench.session.counts.nodes == 200)
    }

    @Test(arguments: [FileHandleUse.preferred, .never]) func `FORGET and BATCH_FORGET forget once`(
        handles: FileHandleUse
    ) throws {
        let scene = try Scene(handles)
        var nodes: [UInt64] = []
        for name in ["a", "b", "c"] {
            try scene.bench.put(name)
            for _ in 0..<4 { nodes.append(try scene.bench.lookUp(name).nodeid) }
        }
        let one = scene.bench.bytes(wire_fuse_forget_in(nlookup: 1))
        #expect(try scene.ask(WIRE_FUSE_FORGET, nodes[0], one, room: 0).isSilent)
        #expect(scene.lookups(nodes[0]) == 3)
        let batch =
            scene.bench.bytes(wire_fuse_batch_forget_in(count: 3, dummy: 0))
            + [0, 4, 8].flatMap {
                scene.bench.bytes(wire_fuse_forget_one(nodeid: nodes[$0], nlookup: $0 == 8 ? 4 : 2))
            }
        #expect(try scene.ask(WIRE_FUSE_BATCH_FORGET, 0, batch, room: 0).isSilent)
        #expect(scene.lookups(nodes[0]) == 1 && scene.lookups(nodes[4]) == 2 && scene.lookups(nodes[8]) == nil)
    }

    @Test(arguments: [FileHandleUse.preferred, .never]) func `attributes are made and removed once`(
        handles: FileHandleUse
    ) throws {
        let scene = try Scene(handles)
        try scene.bench.put("a")
        let node = try scene.bench.lookUp("a").nodeid
        func set(_ flags: UInt32) -> [UInt8] {
            scene.bench.bytes(wire_fuse_setxattr_in(size: 1, flags: flags, setxattr_flags: 0, padding: 0))
                + scene.bench.text("user.a") + [7]
        }
        // XATTR_CREATE, XATTR_REPLACE
        #expect(try scene.ask(WIRE_FUSE_SETXATTR, node, set(1)).error == nil)
        #expect(try scene.ask(WIRE_FUSE_SETXATTR, node, set(1)).error == Errno(rawValue: EEXIST))
        #expect(try scene.ask(WIRE_FUSE_SETXATTR, node, set(2)).error == nil)
        let name = scene.bench.text("user.a")
        #expect(try scene.ask(WIRE_FUSE_REMOVEXATTR, node, name).error == nil)
        #expect(try scene.ask(WIRE_FUSE_REMOVEXATTR, node, name).error == Errno(rawValue: ENODATA))
    }

    @Test(arguments: [FileHandleUse.preferred, .never]) func `what was closed is closed`(handles: FileHandleUse) throws
    {
        let scene = try Scene(handles)
        let (file, handle) = try scene.bench.create("a")
        var arguments = wire_fuse_release_in()
        arguments.fh = handle
        #expect(try scene.ask(WIRE_FUSE_RELEASE, file.nodeid, scene.bench.bytes(arguments)).error == nil)
        #expect(
            try scene.ask(WIRE_FUSE_RELEASE, file.nodeid, scene.bench.bytes(arguments)).error == Errno(rawValue: EBADF))
        #expect(scene.bench.session.counts.openFiles == 0)
        scene.bench.session.reset()
        #expect(scene.custody.slots == [])
    }

    /// Another has seen what a request did, and has changed it since: that stays.
    @Test func `data is written and cut once`() throws {
        let scene = try Scene(.preferred)
        let (file, handle) = try scene.bench.create("a")
        var write = wire_fuse_write_in()
        (write.fh, write.size) = (handle, 5)
        let body = scene.bench.bytes(write) + Array("hello".utf8)
        #expect(scene.bench.call(WIRE_FUSE_WRITE, file.nodeid, body).error == nil)
        let unique = scene.bench.unique
        try scene.bench.put("a", "others")
        scene.bench.unique = unique - 1
        #expect(
            try scene.bench.call(WIRE_FUSE_WRITE, file.nodeid, body).value(wire_fuse_write_out.self).size == 5)
        #expect(try scene.bench.content("a") == "others")
        var cut = wire_fuse_setattr_in()
        (cut.valid, cut.size) = (1 << UInt32(WIRE_FUSE_FATTR_SIZE_BIT), 2)
        #expect(scene.bench.call(WIRE_FUSE_SETATTR, file.nodeid, scene.bench.bytes(cut)).error == nil)
        #expect(try scene.bench.content("a") == "ot")
        try scene.bench.put("a", "others")
        scene.bench.unique -= 1
        let told = try scene.bench.call(WIRE_FUSE_SETATTR, file.nodeid, scene.bench.bytes(cut))
            .value(wire_fuse_attr_out.self)
        #expect(told.attr.size == 6)
        #expect(try scene.bench.content("a") == "others")
        let open = scene.bench.bytes(wire_fuse_open_in(flags: UInt32(O_RDWR | O_TRUNC), open_flags: 0))
        let first = try scene.bench.call(WIRE_FUSE_OPEN, file.nodeid, open).value(wire_fuse_open_out.self).fh
        try scene.bench.put("a", "others")
        scene.bench.unique -= 1
        #expect(try scene.bench.call(WIRE_FUSE_OPEN, file.nodeid, open).value(wire_fuse_open_out.self).fh == first)
        #expect(try scene.bench.content("a") == "others")
    }

    @Test func `a driver that starts anew has the numbers of its requests again`() throws {
        let scene = try Scene(.preferred)
        try scene.bench.put("a")
        let node = try scene.bench.lookUp("a").nodeid
        let unique = scene.bench.unique
        #expect(scene.bench.initialize(.max).error == nil)
        _ = try scene.bench.lookUp("a")
        let other = try scene.bench.lookUp("a").nodeid
        #expect(other != node)
        // As the first one was.
        scene.bench.unique = unique - 1
        #expect(try scene.bench.lookUp("a").nodeid == other && scene.lookups(other) == 3)
    }

    @Test func `what a driver writes over a request that a worker has died over does no harm`() throws {
        let scene = try Scene(.preferred)
        try scene.bench.put("a")
        let node = try scene.bench.lookUp("a").nodeid
        let unique = scene.bench.unique
        #expect(scene.lookups(node) == 1)
        // It takes back its own lookup, and nobody else's.
        let batch =
            scene.bench.bytes(wire_fuse_batch_forget_in(count: 1, dummy: 0))
            + scene.bench.bytes(wire_fuse_forget_one(nodeid: node, nlookup: 1))
        scene.bench.unique = unique - 1
        #expect(scene.bench.call(WIRE_FUSE_BATCH_FORGET, 0, batch, room: 0).isSilent)
        #expect(scene.lookups(node) == nil && scene.bench.session.counts.nodes == 0)
        scene.bench.unique = unique - 1
        #expect(try scene.bench.lookUp("a").attr.mode & S_IFMT == S_IFREG)
        #expect(scene.bench.session.counts.nodes == 1)
    }
}
