import CWire
import Custody
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

@testable import FileTarget

/// Custody in this process: keeps duplicates.
final class TestCustody: OpenFileCustody, @unchecked Sendable {
    private let kept = Mutex<[UInt32: Int32]>([:])
    override func keep(_ file: Int32, slot: UInt32) throws(Errno) {
        let copy = try duplicateDescriptor(file)
        kept.withLock { kept in
            precondition(kept[slot] == nil, "kept twice")
            kept[slot] = copy
        }
    }
    override func release(slot: UInt32) {
        let copy = kept.withLock { $0.removeValue(forKey: slot) }
        precondition(copy != nil, "not kept")
        if let copy { close(copy) }
    }
    var slots: [UInt32] { kept.withLock { $0.keys.sorted() } }
    func duplicate(_ slot: UInt32) throws -> OwnedFD {
        OwnedFD(owning: try duplicateDescriptor(kept.withLock { $0[slot]! }))
    }
}

@Suite("A share: another worker takes over")
struct TakeOverTests {
    @Test(arguments: [FileHandleUse.preferred, .never]) func `nodes, open files and locks go on`(handles: FileHandleUse)
        throws
    {
        var description = ShareDescription(tag: "t")
        description.fileHandles = handles
        description.hasPOSIXLocks = true
        let custody = TestCustody()
        let setup: (TemporaryDirectoryBox, TableFile, UInt64, UInt64, UInt64, UInt64)
        do {
            let bench = try ShareBench(description, custody: custody)
            let d = try bench.makeDirectory("d").nodeid
            let (file, handle) = try bench.create("a", in: d)
            _ = try bench.write(file.nodeid, handle, Array("hello".utf8))
            // Nobody but custody has it.
            #expect(bench.call(WIRE_FUSE_UNLINK, d, bench.text("a")).error == nil)
            let (other, locked) = try bench.create("b")
            var lock = wire_fuse_lk_in()
            (lock.fh, lock.owner) = (locked, 7)
            lock.lk = wire_fuse_file_lock(start: 0, end: 9, type: UInt32(F_WRLCK), pid: 1)
            #expect(bench.call(WIRE_FUSE_SETLK, other.nodeid, bench.bytes(lock)).error == nil)
            setup = (bench.directory, bench.tables, file.nodeid, handle, other.nodeid, locked)
        }
        let (directory, tables, node, handle, other, locked) = setup
        let bench = try ShareBench(description, custody: custody, after: (directory, tables))
        for slot in custody.slots {
            #expect(bench.session.wantsFile(slot: slot))
            let isKnown = bench.session.restore(try custody.duplicate(slot), slot: slot)
            #expect(isKnown)
        }
        #expect(bench.session.agreement != nil)
        #expect(bench.session.counts.openFiles == 2 && bench.session.counts.nodes == 3)
        #expect(try bench.read(node, handle, count: 9) == Array("hello".utf8))
        #expect(try bench.lookUp("b").nodeid == other)
        var lock = wire_fuse_lk_in()
        (lock.fh, lock.owner) = (locked, 8)
        lock.lk = wire_fuse_file_lock(start: 0, end: 9, type: UInt32(F_WRLCK), pid: 1)
        #expect(bench.call(WIRE_FUSE_SETLK, other, bench.bytes(lock)).error == .wouldBlock)
        try bench.release(node, handle)
        try bench.release(other, locked)
        bench.session.reset()
        #expect(custody.slots == [])
    }

    @Test func `an interrupt that the worker before has heard, and not heeded, is heeded`() throws {
        var description = ShareDescription(tag: "t")
        description.hasPOSIXLocks = true
        let custody = TestCustody()
        let lock = { (bench: ShareBench, handle: UInt64, owner: UInt64) -> [UInt8] in
            var lock = wire_fuse_lk_in()
            (lock.fh, lock.owner) = (handle, owner)
            lock.lk = wire_fuse_file_lock(start: 0, end: 9, type: UInt32(F_WRLCK), pid: 1)
            return bench.bytes(lock)
        }
        let setup: (TemporaryDirectoryBox, TableFile, UInt64, UInt64, UInt64)
        do {
            let bench = try ShareBench(description, custody: custody)
            let (file, handle) = try bench.create("b")
            #expect(bench.call(WIRE_FUSE_SETLK, file.nodeid, lock(bench, handle, 7)).error == nil)
            let step = bench.start(WIRE_FUSE_SETLKW, file.nodeid, lock(bench, handle, 8), slot: 1)
            guard case .waiting = bench.wait(step, slot: 1) else {
                Issue.record("it does not wait")
                return
            }
            let unique = bench.slots.with(1) { $0.unique }
            #expect(bench.call(WIRE_FUSE_INTERRUPT, 0, bench.bytes(wire_fuse_interrupt_in(unique: unique))).isSilent)
            setup = (bench.directory, bench.tables, file.nodeid, handle, unique)
        }
        let (directory, tables, node, handle, unique) = setup
        let bench = try ShareBench(description, custody: custody, after: (directory, tables))
        for slot in custody.slots { _ = bench.session.restore(try custody.duplicate(slot), slot: slot) }
        // The next one, too, if this one has not answered it.
        for _ in 0..<2 {
            bench.unique = unique - 1
            let again = bench.start(WIRE_FUSE_SETLKW, node, lock(bench, handle, 8), slot: 1)
            guard case .waiting = bench.wait(again, slot: 1) else {
                Issue.record("it does not wait")
                return
            }
            let end = bench.slots.with(1) { bench.server.resume(&$0) }
            #expect(bench.reply(end).error == .interrupted)
        }
        bench.session.reset()
    }

    /// The kernel cuts a read short whose process is killed.
    @Test func `a read that was cut short by a death goes on`() throws {
        let bench = try ShareBench()
        try bench.put("a", String(repeating: "x", count: 300))
        let node = try bench.lookUp("a").nodeid
        var arguments = wire_fuse_read_in()
        arguments.fh = try bench.open(node)
        (arguments.offset, arguments.size) = (10, 4096)
        let reply = bench.finishAdopted(
            WIRE_FUSE_READ, node, bench.bytes(arguments),
            RequestProgress(done: 0, state: UInt64(Stage.reading.rawValue)), result: 100)
        #expect(reply.error == nil && reply.bytes.count == 290)
    }

    @Test func `files that were opened, and whose answers nobody has seen, are nobody's after a death`() throws {
        let custody = TestCustody()
        let setup: (TemporaryDirectoryBox, TableFile)
        do {
            let bench = try ShareBench(custody: custody)
            let (file, handle) = try bench.create("a")
            // More than custody takes in one call.
            for _ in 0..<20 {
                let step = bench.start(WIRE_FUSE_OPEN, file.nodeid, bench.bytes(wire_fuse_open_in()))
                #expect(bench.reply(step).error == nil)
            }
            #expect(custody.slots.count == 17)
            #expect(custody.slots.contains(UInt32(truncatingIfNeeded: handle)))
            setup = (bench.directory, bench.tables)
        }
        let bench = try ShareBench(custody: custody, after: setup)
        for slot in custody.slots { _ = bench.session.restore(try custody.duplicate(slot), slot: slot) }
        #expect(bench.session.counts.openFiles == 17)
        // Their slots are free.
        let reused = try bench.create("b").handle
        #expect(UInt32(truncatingIfNeeded: reused) < 21)
        bench.session.reset()
        #expect(custody.slots == [])
    }

    @Test func `a file that custody has and the tables do not is not wanted`() throws {
        let custody = TestCustody()
        let bench = try ShareBench(custody: custody)
        let (file, handle) = try bench.create("a")
        let slot = UInt32(truncatingIfNeeded: handle)
        try bench.release(file.nodeid, handle)
        #expect(!bench.session.wantsFile(slot: slot))
        #expect(!bench.session.wantsFile(slot: 0) && !bench.session.wantsFile(slot: .max))
        let fd = OwnedFD(owning: try duplicateDescriptor(0))
        let isKnown = bench.session.restore(fd, slot: slot)
        #expect(!isKnown)
    }

    @Test func `damaged tables are refused`() throws {
        func check(_ offset: Int, _ value: UInt64, isGood: Bool = false) throws {
            let count = ShareMemory.Size(nodes: 64, files: 16).byteCount
            let file = try makeMemoryFile(name: "share", count: count)
            _ = try ShareMemory(making: file, ShareMemory.Size(nodes: 64, files: 16))
            var value = value
            #expect(unsafe pwrite(file.number, &value, 8, off_t(offset)) == 8)
            if isGood {
                _ = try ShareMemory(mapping: file)
            } else {
                #expect(throws: SystemError.self) { _ = try ShareMemory(mapping: file) }
            }
        }
        try check(4000, 1, isGood: true)
        try check(0, 1)
        try check(8, 2)
        try check(16, 1 << 40)
        try check(24, 4096)
        try check(56, 99 << 32)
        let short = try makeMemoryFile(name: "share", count: 100)
        #expect(throws: SystemError.self) { _ = try ShareMemory(mapping: short) }
    }
}
