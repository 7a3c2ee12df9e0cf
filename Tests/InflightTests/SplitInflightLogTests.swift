import CWire
import Inflight
import Platform
import Testing

/// The log of requests in flight, as a successor finds it.
@Suite struct SplitInflightLogTests {
    /// A region, and the ring that it belongs to: as much of both as survives a worker.
    final class Survivors {
        static let size = 8
        let fd: OwnedFD
        let region: InflightRegion
        let view: Mapping
        /// used.idx of the ring.
        var usedIndex: UInt16

        init(usedIndex: UInt16 = 0) throws {
            self.usedIndex = usedIndex
            fd = try InflightRegion.makeFile(queueCount: 1, queueSize: Self.size)
            let count = InflightRegion.byteCount(queueCount: 1, queueSize: Self.size)
            region = try InflightRegion(fd: fd, offset: 0, count: UInt64(count), queueCount: 1, queueSize: Self.size)
            view = try Mapping(sharing: fd, count: count)
        }

        func successor() throws -> (log: Log, plan: RecoveryPlan) {
            var log = try SplitInflightLog(region, queue: 0, size: Self.size)
            let plan = try log.recover(usedIndex: usedIndex)
            return (Log(log), plan)
        }

        func isInFlight(_ head: Int) -> Bool { unsafe wire_load8(view.base + 16 + 16 * head) != 0 }
        func setInFlight(_ head: Int, counter: UInt64) {
            unsafe wire_store64(view.base + 16 + 16 * head + 8, counter)
            unsafe wire_store8(view.base + 16 + 16 * head, 1)
        }
        var version: UInt16 { unsafe wire_load16(view.base + 8) }
        var lastBatchHead: UInt16 { unsafe wire_load16(view.base + 12) }
        var loggedUsedIndex: UInt16 { unsafe wire_load16(view.base + 14) }
        func setHeader(version: UInt16? = nil, lastBatchHead: UInt16? = nil, usedIndex: UInt16? = nil) {
            if let version { unsafe wire_store16(view.base + 8, version) }
            if let lastBatchHead { unsafe wire_store16(view.base + 12, lastBatchHead) }
            if let usedIndex { unsafe wire_store16(view.base + 14, usedIndex) }
        }
    }

    final class Log {
        var log: SplitInflightLog
        init(_ log: consuming SplitInflightLog) { self.log = log }
    }

    @Test func `a fresh region on a ring that was used starts where the ring is`() throws {
        let survivors = try Survivors(usedIndex: 100)
        let (_, plan) = try survivors.successor()
        #expect(plan.isFresh && plan.heads.isEmpty)
        #expect(survivors.version == 1)
        #expect(survivors.loggedUsedIndex == 100)
        let again = try survivors.successor().plan
        #expect(!again.isFresh && again.heads.isEmpty)
    }

    @Test func `what was taken is carried out again in the order in which it was taken`() throws {
        let survivors = try Survivors()
        let worker = try survivors.successor().log
        for head in [5, 2, 7, 0] as [UInt16] { worker.log.take(head) }
        let (next, plan) = try survivors.successor()
        #expect(plan.heads == [5, 2, 7, 0])
        // What the next one takes comes after.
        next.log.take(1)
        #expect(try survivors.successor().plan.heads == [5, 2, 7, 0, 1])
    }

    @Test func `what was returned but not published is carried out again`() throws {
        let survivors = try Survivors()
        let worker = try survivors.successor().log
        for head in 0..<4 as Range<UInt16> { worker.log.take(head) }
        worker.log.giveBack(2)
        #expect(try survivors.successor().plan.heads == [0, 1, 2, 3])
    }

    @Test func `what was published is never carried out again, whatever the worker got to strike off`() throws {
        for struckOff in 0...3 {
            let survivors = try Survivors(usedIndex: 65_534)
            let worker = try survivors.successor().log
            for head in 0..<4 as Range<UInt16> { worker.log.take(head) }
            for head in [1, 3, 0] as [UInt16] { worker.log.giveBack(head) }
            // used.idx has wrapped.
            survivors.usedIndex = 1
            worker.log.strikeOff(usedIndex: 1)
            // Undo the last stores: death came after `struckOff` of them.
            for head in [1, 3, 0].prefix(3 - struckOff) { survivors.setInFlight(head, counter: UInt64(head) + 1) }
            survivors.setHeader(usedIndex: 65_534)
            let plan = try survivors.successor().plan
            #expect(plan.heads == [2])
            #expect(plan.struckOff == 3)
            #expect(try survivors.successor().plan.heads == [2])
        }
    }

    @Test func `an element that belongs to no request strikes nothing off`() throws {
        let survivors = try Survivors()
        let worker = try survivors.successor().log
        worker.log.take(3)
        worker.log.giveBack(3)
        survivors.usedIndex = 1
        worker.log.strikeOff(usedIndex: 1)
        worker.log.take(3)
        worker.log.giveBackNothing()
        survivors.usedIndex = 2
        // Death before used_idx follows.
        #expect(try survivors.successor().plan.heads == [3])
    }

    @Test func `a log that contradicts itself is refused and not touched`() throws {
        let survivors = try Survivors()
        let worker = try survivors.successor().log
        for head in 0..<4 as Range<UInt16> { worker.log.take(head) }
        survivors.setHeader(version: 2)
        #expect(throws: InflightLogError.self) { _ = try survivors.successor() }
        survivors.setHeader(version: 1)
        survivors.usedIndex = 9
        #expect(throws: InflightLogError.self) { _ = try survivors.successor() }
        survivors.usedIndex = 2
        survivors.setHeader(lastBatchHead: 8)
        #expect(throws: InflightLogError.self) { _ = try survivors.successor() }
        #expect((0..<4).allSatisfy { survivors.isInFlight($0) })
        #expect(survivors.loggedUsedIndex == 0)
    }

    @Test func `a region must hold what it says`() throws {
        let fd = try makeMemoryFile(name: "region", count: 4096)
        func region(_ count: UInt64, _ queues: Int, _ size: Int, offset: UInt64 = 0) throws(Errno) {
            _ = try InflightRegion(fd: fd, offset: offset, count: count, queueCount: queues, queueSize: size)
        }
        try region(16 + 16 * 128, 1, 128)
        try region(4096, 2, 127)
        try region(2048, 1, 127, offset: 2048)
        for (count, queues, size, offset) in [
            (16 + 16 * 128 - 8, 1, 128, 0), (4096, 2, 128, 0), (4097, 1, 128, 0), (2048, 1, 127, 2049),
            (2048, 1, 127, 4), (4096, 0, 128, 0), (4096, 1, 0, 0), (4096, 1, 40_000, 0),
            (UInt64.max, 1, 128, 0), (2048, 1, 127, .max - 7),
        ] as [(UInt64, Int, Int, UInt64)] {
            #expect(throws: Errno.invalidArgument) { try region(count, queues, size, offset: offset) }
        }
        let small = try InflightRegion(fd: fd, offset: 0, count: 4096, queueCount: 1, queueSize: 16)
        #expect(throws: Errno.invalidArgument) { _ = try SplitInflightLog(small, queue: 0, size: 64) }
        #expect(throws: Errno.invalidArgument) { _ = try SplitInflightLog(small, queue: 1, size: 16) }
    }

    @Test func `without a region nothing is kept`() throws {
        var log = SplitInflightLog.none
        log.take(0)
        log.giveBack(0)
        log.strikeOff(usedIndex: 1)
        log.giveBackNothing()
        let plan = try log.recover(usedIndex: 1)
        #expect(plan == RecoveryPlan())
    }
}
