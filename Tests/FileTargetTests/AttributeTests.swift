import CLinux
import CWire
import FileTarget
import Glibc
import Platform
import Testing

@Suite("A share: extended attributes and locks")
struct AttributeTests {
    private func set(_ bench: ShareBench, _ node: UInt64, _ name: String, _ value: [UInt8], flags: UInt32 = 0) -> Errno?
    {
        var arguments = wire_fuse_setxattr_in()
        arguments.size = UInt32(value.count)
        arguments.flags = flags
        return bench.call(WIRE_FUSE_SETXATTR, node, bench.bytes(arguments) + bench.text(name) + value).error
    }

    private func get(_ bench: ShareBench, _ node: UInt64, _ name: String, size: UInt32 = 4096) -> ShareBench.Reply {
        let arguments = wire_fuse_getxattr_in(size: size, padding: 0)
        return bench.call(WIRE_FUSE_GETXATTR, node, bench.bytes(arguments) + bench.text(name))
    }

    private func list(_ bench: ShareBench, _ node: UInt64) -> [String] {
        let arguments = wire_fuse_getxattr_in(size: 65536, padding: 0)
        let bytes = bench.call(WIRE_FUSE_LISTXATTR, node, bench.bytes(arguments)).bytes
        return bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.sorted()
    }

    @Test("are set, told and removed", arguments: [FileHandleUse.preferred, .never])
    func attributes(handles: FileHandleUse) throws {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        description.hasExtendedAttributes = true
        let bench = try ShareBench(description)
        let file = try bench.create("a").entry.nodeid
        #expect(set(bench, file, "user.x", [1, 2, 3]) == nil)
        #expect(set(bench, file, "user.x", [1], flags: 1) == Errno(rawValue: EEXIST))
        #expect(get(bench, file, "user.x").bytes == [1, 2, 3])
        #expect(try get(bench, file, "user.x", size: 0).value(wire_fuse_getxattr_out.self).size == 3)
        #expect(get(bench, file, "user.x", size: 1).error == Errno(rawValue: ERANGE))
        #expect(get(bench, file, "user.y").error == Errno(rawValue: ENODATA))
        #expect(list(bench, file) == ["user.x"])
        #expect(bench.call(WIRE_FUSE_REMOVEXATTR, file, bench.text("user.x")).error == nil)
        #expect(list(bench, file) == [])
        // Of a link itself.
        let link = try bench.call(WIRE_FUSE_SYMLINK, ShareBench.root, bench.text("s") + bench.text("a"))
            .value(wire_fuse_entry_out.self).nodeid
        #expect(set(bench, link, "trusted.x", [7]) == nil)
        #expect(get(bench, link, "trusted.x").bytes == [7])
        #expect(get(bench, file, "trusted.x").error == Errno(rawValue: ENODATA))
        #expect(set(bench, ShareBench.root, "user.r", [8]) == nil)
        #expect(get(bench, ShareBench.root, "user.r").bytes == [8])
    }

    @Test("without them there are none")
    func off() throws {
        let bench = try ShareBench()
        let file = try bench.create("a").entry.nodeid
        #expect(set(bench, file, "user.x", [1]) == .notSupported)
        #expect(get(bench, file, "user.x").error == .notSupported)
    }

    @Test("names are mapped by rules")
    func rules() throws {
        var description = ShareDescription(tag: "t")
        description.hasExtendedAttributes = true
        description.attributeRules = try AttributeRules(parsing: "/map/trusted./user.virtiofs./")
        let bench = try ShareBench(description)
        let file = try bench.create("a").entry.nodeid
        #expect(set(bench, file, "trusted.x", [1]) == nil)
        #expect(set(bench, file, "user.y", [2]) == nil)
        #expect(set(bench, file, "user.virtiofs.z", [3]) == .notPermitted)
        #expect(list(bench, file) == ["trusted.x", "user.y"])
        #expect(get(bench, file, "trusted.x").bytes == [1])
        var value = [UInt8](repeating: 0, count: 8)
        #expect(unsafe getxattr("\(bench.path)/a", "user.virtiofs.trusted.x", &value, 8) == 1)
        #expect(unsafe getxattr("\(bench.path)/a", "trusted.x", &value, 8) == -1)
    }

    @Test("rules that make no sense are refused with a sentence")
    func wrongRules() {
        for text in ["", ":ok", ":what:all:::", ":ok:some:::", ":map:x::", ":map:a:b: :ok:all:::"] {
            #expect(throws: SystemError.self, "\(text)") { try AttributeRules(parsing: text) }
        }
        #expect(throws: Never.self) { try AttributeRules(parsing: ":prefix:all::user.v.:\n:bad:all:::") }
    }

    @Test("POSIX locks are the host's, and their owners are kept apart")
    func locks() throws {
        var description = ShareDescription(tag: "t")
        description.hasPOSIXLocks = true
        let bench = try ShareBench(description)
        let (file, handle) = try bench.create("a")
        func lock(_ owner: UInt64, _ type: Int32, _ range: ClosedRange<UInt64>) -> wire_fuse_lk_in {
            var arguments = wire_fuse_lk_in()
            (arguments.fh, arguments.owner) = (handle, owner)
            arguments.lk = wire_fuse_file_lock(
                start: range.lowerBound, end: range.upperBound, type: UInt32(type), pid: 1)
            return arguments
        }
        func ask(_ opcode: Int, _ lock: wire_fuse_lk_in) -> ShareBench.Reply {
            bench.call(opcode, file.nodeid, bench.bytes(lock))
        }
        #expect(ask(WIRE_FUSE_SETLK, lock(1, F_WRLCK, 0...99)).error == nil)
        #expect(ask(WIRE_FUSE_SETLK, lock(2, F_RDLCK, 99...200)).error == .wouldBlock)
        #expect(ask(WIRE_FUSE_SETLK, lock(2, F_WRLCK, 100...200)).error == nil)
        let found = try ask(WIRE_FUSE_GETLK, lock(2, F_RDLCK, 50...60)).value(wire_fuse_file_lock.self)
        #expect(found.type == UInt32(F_WRLCK) && found.start == 0 && found.end == 99)
        // One waits, until the owner closes a descriptor of the file.
        let step = bench.start(
            WIRE_FUSE_SETLKW, file.nodeid, bench.bytes(lock(2, F_RDLCK, 0...UInt64(Int64.max))), slot: 1)
        guard case .waiting = bench.wait(step, slot: 1) else {
            Issue.record("it does not wait")
            return
        }
        func resume() -> FuseStep { bench.slots.with(1) { bench.server.resume(&$0) } }
        guard case .waiting = resume() else {
            Issue.record("it does not wait on")
            return
        }
        let before = bench.session.lockReleases
        var flush = wire_fuse_flush_in()
        (flush.fh, flush.lock_owner) = (handle, 1)
        #expect(bench.call(WIRE_FUSE_FLUSH, file.nodeid, bench.bytes(flush)).error == nil)
        #expect(bench.session.lockReleases > before)
        guard case .done = resume() else {
            Issue.record("it waits on")
            return
        }
        #expect(ask(WIRE_FUSE_SETLK, lock(1, F_WRLCK, 0...0)).error == .wouldBlock)
    }

    @Test("a request that waits for a lock is interrupted")
    func interrupt() throws {
        var description = ShareDescription(tag: "t")
        description.hasFlock = true
        let bench = try ShareBench(description)
        let (file, handle) = try bench.create("a")
        let other = try bench.open(file.nodeid)
        func lock(_ handle: UInt64, _ type: Int32) -> [UInt8] {
            var arguments = wire_fuse_lk_in()
            (arguments.fh, arguments.lk_flags) = (handle, 1)
            arguments.lk.type = UInt32(type)
            return bench.bytes(arguments)
        }
        #expect(bench.call(WIRE_FUSE_SETLK, file.nodeid, lock(handle, F_WRLCK)).error == nil)
        #expect(bench.call(WIRE_FUSE_SETLK, file.nodeid, lock(other, F_RDLCK)).error == .wouldBlock)
        let step = bench.start(WIRE_FUSE_SETLKW, file.nodeid, lock(other, F_RDLCK), slot: 1)
        guard case .waiting = bench.wait(step, slot: 1) else {
            Issue.record("it does not wait")
            return
        }
        let unique = bench.slots.with(1) { $0.unique }
        #expect(
            bench.call(WIRE_FUSE_INTERRUPT, 0, bench.bytes(wire_fuse_interrupt_in(unique: unique))).isSilent)
        let end = bench.slots.with(1) { bench.server.resume(&$0) }
        #expect(bench.reply(end).error == .interrupted)
        // A close gives the lock up.
        try bench.release(file.nodeid, handle)
        #expect(bench.call(WIRE_FUSE_SETLK, file.nodeid, lock(other, F_RDLCK)).error == nil)
    }
}
