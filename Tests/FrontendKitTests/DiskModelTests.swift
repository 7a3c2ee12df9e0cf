import Testing

@testable import FrontendKit

/// What the model allows and what it does not, one sector, one history at a time.
@Suite struct DiskModelTests {
    /// A disk of two sectors; the first is the one that histories are about.
    struct Disk {
        var model: DiskModel
        static let seed: UInt64 = 42

        init(initially content: InitialContent = .zeros) {
            model = DiskModel(sectors: 0..<2, initially: content)
        }

        mutating func begin(_ sequence: UInt64) { model.beginWrite(0..<1, .write(sequence: sequence), id: sequence) }
        mutating func end(_ sequence: UInt64, certain: Bool = true) {
            model.endWrite(0..<1, id: sequence, certain: certain)
        }
        mutating func write(_ sequence: UInt64) {
            begin(sequence)
            end(sequence)
        }
        mutating func beginRead() -> UInt64 { model.beginRead(0..<1) }
        mutating func endRead(_ started: UInt64, finding content: SectorContent) -> MismatchKind? {
            defer { model.endRead(0..<1) }
            return model.check(0, content, readStarted: started, seed: Self.seed)
        }
        mutating func read(_ content: SectorContent) -> MismatchKind? { endRead(beginRead(), finding: content) }
    }

    static func content(_ sequence: UInt64, sector: UInt64 = 0, seed: UInt64 = Disk.seed) -> SectorContent {
        .stamp(SectorStamp(seed: seed, sector: sector, sequence: sequence, queue: 0))
    }

    @Test func aFreshDiskHoldsZeros() {
        var disk = Disk()
        #expect(disk.read(.zeros) == nil)
        #expect(disk.read(Self.content(1)) == .stale)
    }

    @Test func anUnknownDiskHoldsAnythingUntilItIsWritten() {
        var disk = Disk(initially: .unknown)
        #expect(disk.read(.other) == nil)
        disk.write(1)
        #expect(disk.read(.other) == .corrupt)
    }

    @Test func aCompletedWriteIsThere() {
        var disk = Disk()
        disk.write(1)
        #expect(disk.read(Self.content(1)) == nil)
    }

    @Test func aWriteThatWasNeverSeenIsLost() {
        var disk = Disk()
        disk.write(1)
        #expect(disk.read(.zeros) == .lost)
    }

    @Test func contentThatComesBackIsStale() {
        var disk = Disk()
        disk.write(1)
        disk.write(2)
        #expect(disk.read(Self.content(2)) == nil)
        #expect(disk.read(Self.content(1)) == .stale)
    }

    @Test func duringAWriteOldAndNewAreLegal() {
        var disk = Disk()
        disk.write(1)
        disk.begin(2)
        #expect(disk.read(Self.content(1)) == nil)
        #expect(disk.read(Self.content(2)) == nil)
        #expect(disk.read(Self.content(1)) == nil)
        disk.end(2)
        #expect(disk.read(Self.content(1)) == .stale)
    }

    @Test func aReadThatBeganBeforeTheWriteEndedMayReturnTheOld() {
        var disk = Disk()
        disk.write(1)
        disk.begin(2)
        let read = disk.beginRead()
        disk.end(2)
        #expect(disk.endRead(read, finding: Self.content(1)) == nil)
        #expect(disk.read(Self.content(1)) == .lost)
    }

    @Test func aSectorMayBeHalfWrittenOnlyWhileItIsWritten() {
        var disk = Disk()
        disk.write(1)
        disk.begin(2)
        #expect(disk.read(.other) == nil)
        let started = disk.beginRead()
        disk.end(2)
        #expect(disk.endRead(started, finding: .other) == nil)
        #expect(disk.read(.other) == .corrupt)
    }

    @Test func ofOverlappingWritesAnyMayBeTheLast() {
        for last in [1, 2] as [UInt64] {
            var disk = Disk()
            disk.begin(1)
            disk.begin(2)
            disk.end(2)
            disk.end(1)
            #expect(disk.read(.zeros) == .lost)
            #expect(disk.read(Self.content(last)) == nil)
            // Now it is settled which.
            #expect(disk.read(Self.content(3 - last)) == .stale)
        }
    }

    @Test func aChainOfOverlapsDoesNotKeepTheFirstAlive() {
        var disk = Disk()
        disk.begin(1)
        disk.begin(2)
        disk.end(1)
        disk.begin(3)
        disk.end(3)
        // Write 1 ended before 3 began: gone. Write 2 is still in flight.
        #expect(disk.read(Self.content(1)) == .lost)
        #expect(disk.read(Self.content(2)) == nil)
        #expect(disk.read(Self.content(3)) == nil)
    }

    @Test func aWriteThatFailedMayHaveHappened() {
        var disk = Disk()
        disk.write(1)
        disk.begin(2)
        disk.end(2, certain: false)
        #expect(disk.read(Self.content(2)) == nil)
        #expect(disk.read(Self.content(1)) == .stale)
    }

    @Test func aDiscardedSectorKeepsItsContentOrHoldsZeros() {
        for content in [Self.content(1), .zeros] {
            var disk = Disk()
            disk.write(1)
            for id in [2, 3] as [UInt64] {
                disk.model.beginWrite(0..<1, .zeros, id: id)
                disk.end(id, certain: false)
            }
            #expect(disk.read(content) == nil)
            #expect(disk.read(content == .zeros ? Self.content(1) : .zeros) == .stale)
        }
    }

    @Test func foreignContentIsNamed() {
        var disk = Disk()
        disk.write(1)
        #expect(disk.read(Self.content(1, sector: 1)) == .misdirected)
        #expect(disk.read(Self.content(1, seed: 7)) == .corrupt)
        #expect(disk.read(.other) == .corrupt)
    }

    @Test func tooManyOverlapsAreNotBegun() {
        var disk = Disk()
        for sequence in 1..<UInt64(DiskModel.candidateLimit) {
            #expect(disk.model.mayBegin(0..<1, writes: true, overlapping: true))
            disk.begin(sequence)
        }
        #expect(!disk.model.mayBegin(0..<1, writes: true, overlapping: true))
        #expect(disk.model.mayBegin(0..<1, writes: false, overlapping: true))
        #expect(!disk.model.mayBegin(0..<1, writes: false, overlapping: false))
        #expect(disk.model.mayBegin(1..<2, writes: true, overlapping: false))
    }

    @Test func everyBitOfASectorCounts() {
        var words = [UInt64](repeating: 0, count: 64)
        let stamp = SectorStamp(seed: 1, sector: 2, sequence: 3, queue: 4)
        unsafe words.withUnsafeMutableBytes { bytes in
            let start = bytes.baseAddress!
            #expect(unsafe SectorStamp.read(from: start) == .zeros)
            unsafe stamp.write(to: start)
            #expect(unsafe SectorStamp.read(from: start) == .stamp(stamp))
            for bit in 0..<4096 {
                unsafe bytes[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(unsafe SectorStamp.read(from: start) == .other)
                unsafe bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            }
        }
    }
}
