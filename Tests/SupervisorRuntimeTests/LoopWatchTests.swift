import CWire
import Custody
import Glibc
import Platform
import Testing

@testable import SupervisorRuntime

@Suite struct LoopWatchTests {
    private static let second: UInt64 = 1_000_000_000

    /// Looks at a loop once a second.
    ///
    /// - Returns: after how many seconds it would be killed, with a limit of 10; nil: not within a minute.
    private func seconds(until look: (UInt64) -> LoopWatch.Look) -> UInt64? {
        var watch = LoopWatch()
        return (0..<60 as Range<UInt64>).first { now in
            watch.observe(look(now), at: now * Self.second, limit: 10 * Self.second) >= 10 * Self.second
        }
    }

    @Test func `whoever makes rounds is alive, however much there is to do`() {
        #expect(seconds { LoopWatch.Look(turns: $0, isResting: false, hasArrivals: true) } == nil)
    }

    @Test func `whoever goes from one request to the next is alive, however long a round takes`() {
        #expect(
            seconds {
                LoopWatch.Look(
                    turns: 7, handling: HandledRequest(queue: 1, slot: UInt16($0 / 8)), isResting: false,
                    hasArrivals: true)
            } == nil)
    }

    @Test func `whoever handles one request for ever is hung`() {
        let handling = HandledRequest(queue: 1, slot: 3)
        #expect(
            seconds { _ in LoopWatch.Look(turns: 7, handling: handling, isResting: false, hasArrivals: true) } == 10)
    }

    @Test func `whoever sleeps with nothing to do is idle`() {
        #expect(seconds { _ in LoopWatch.Look(turns: 7, isResting: true, hasArrivals: false) } == nil)
    }

    @Test func `whoever is awake and makes no round is hung`() {
        #expect(seconds { _ in LoopWatch.Look(turns: 7, isResting: false, hasArrivals: false) } == 10)
    }

    @Test func `whoever sleeps on when something has come is hung`() {
        #expect(seconds { LoopWatch.Look(turns: 7, isResting: true, hasArrivals: $0 >= 20) } == 29)
    }

    @Test func `one round begins the count anew`() {
        #expect(seconds { LoopWatch.Look(turns: $0 / 8, isResting: false, hasArrivals: true) } == nil)
    }

    @Test func `a machine that stood still is nobody's fault`() {
        var watch = LoopWatch()
        let look = LoopWatch.Look(turns: 7, isResting: false, hasArrivals: true)
        #expect(watch.observe(look, at: 0, limit: 10) == 0)
        #expect(watch.observe(look, at: 1_000_000, limit: 10) == 5)
        #expect(watch.observe(look, at: 1_000_001, limit: 10) == 6)
    }
}

/// What a record tells of those that had the device.
@Suite struct LifeTests {
    private func makeRecord() throws -> SessionRecord {
        try SessionRecord(try SessionRecord.makeFile(RecordGeometry(queueCount: 2, queueSize: 8, ringCount: 3)))
    }

    @Test(arguments: [(0, "fewer"), (4095, "fewer"), (4096, "no session record"), (600 << 20, "more")])
    func `a file of a wrong size is no record, and is told of by its size`(size: Int, reason: String) throws {
        let file = try makeMemoryFile(name: "no record", count: size)
        let error = #expect(throws: SessionRecordError.self) { try SessionRecord(file) }
        let text = "\(try #require(error))"
        #expect(text.contains(reason))
        if reason != "no session record" { #expect(text.contains(" \(size) bytes")) }
    }

    @Test func `a worker cannot take a record away from those who look at it`() throws {
        let geometry = try RecordGeometry(queueCount: 2, queueSize: 8, ringCount: 3)
        let file = try SessionRecord.makeFile(geometry)
        #expect(ftruncate(file.number, 4096) != 0)
        _ = try SessionRecord(file, expecting: geometry)
        // The number of rings changes no size, and is what rings are asked for by.
        let other = try RecordGeometry(queueCount: 2, queueSize: 8, ringCount: 1)
        #expect(other.byteCount == geometry.byteCount)
        #expect(throws: SessionRecordError.self) { try SessionRecord(file, expecting: other) }
    }

    @Test func `numbers of generations that a worker makes up are read, not believed`() throws {
        let file = try SessionRecord.makeFile(RecordGeometry(queueCount: 2, queueSize: 8, ringCount: 3))
        let record = try SessionRecord(file)
        let first = try record.claim(from: 0, process: 100)
        // All ones all over the header, where lives and their numbers are.
        let mapping = try Mapping(sharing: file, count: 4096)
        for offset in stride(from: 64, to: 4096, by: 8) where unsafe wire_load64(mapping.base + offset) == first {
            unsafe wire_store64(mapping.base + offset, .max)
        }
        _ = record.life(ofProcess: 100)
        _ = record.life(of: record.owner)
        _ = record.life(of: .max)
    }

    @Test func `a successor wipes nothing out`() throws {
        let record = try makeRecord()
        let first = try record.claim(from: 0, process: 100)
        var account = QueueAccount(record, queue: 1, ring: 1)
        for _ in 0..<3 { account.giveBack() }
        account.publish()
        account.handle(5)
        #expect(record.loop(1).handling == HandledRequest(queue: 1, slot: 5))
        record.noteHang(first, handling: record.loop(1).handling)
        let second = try record.claim(from: first, process: 200)
        #expect(record.loop(1).handling == nil)
        let life = try #require(record.life(ofProcess: 100))
        #expect(life.generation == first)
        #expect(life.returned == 3)
        #expect(life.isHung)
        #expect(life.handling == HandledRequest(queue: 1, slot: 5))
        let next = try #require(record.life(of: second))
        #expect(next.returned == 0)
        #expect(!next.isHung && next.fatalSignal == 0 && next.handling == nil)
    }

    @Test func `what is long ago is forgotten, not made up`() throws {
        let record = try makeRecord()
        var owner: UInt64 = 0
        for process in 1...9 as ClosedRange<Int32> { owner = try record.claim(from: owner, process: process) }
        #expect(record.life(ofProcess: 1) == nil)
        #expect(record.life(of: 1) == nil)
        #expect(record.life(ofProcess: 9)?.generation == 9)
        #expect(record.life(ofProcess: 77) == nil)
    }

    @Test func `blame is of one request, and once for each death`() throws {
        let record = try makeRecord()
        let records = RequestRecords(record, queue: 0, size: 8, generation: 3)
        #expect(records.strikes(4, counter: 9) == 0)
        records.strike(4, counter: 9, generation: 1)
        records.strike(4, counter: 9, generation: 1)
        #expect(records.strikes(4, counter: 9) == 1)
        #expect(records.strikes(4, counter: 10) == 0, "another request on the same head")
        records.strike(4, counter: 9, generation: 2)
        #expect(records.strikes(4, counter: 9) == 2)
        records.strike(4, counter: 10, generation: 3)
        #expect(records.strikes(4, counter: 10) == 1)
        records.forgive(4)
        #expect(records.strikes(4, counter: 10) == 0)
    }
}
