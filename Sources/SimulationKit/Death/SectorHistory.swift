/// What was written to the sectors of a disk, and when: it knows which values a read may return.
///
/// A disk orders two requests only if one was answered before the other was made available. A read may return what the
/// last write left that was answered before it began, or what any write does that was under way at the same time. The
/// same holds for what lies on the disk in the end.
struct SectorHistory {
    private struct Write {
        var value: UInt64
        var start: Int
        /// nil while it is under way.
        var end: Int?
    }

    private var writes: [[Write]]

    init(sectors: Int) {
        writes = (0..<sectors).map { [Write(value: Self.word(0, sector: $0), start: -2, end: -1)] }
    }

    /// What each 8 bytes of a sector hold that the write with this number made.
    static func word(_ sequence: UInt64, sector: Int) -> UInt64 { (sequence + 1) << 16 | UInt64(sector) }

    var sectors: Int { writes.count }

    /// A write begins.
    ///
    /// - Parameter sequence: nil writes zeroes.
    mutating func begin(_ sequence: UInt64?, sectors: Range<Int>, at time: Int) {
        for sector in sectors {
            let value = sequence.map { Self.word($0, sector: sector) } ?? 0
            writes[sector].append(Write(value: value, start: time, end: nil))
        }
    }

    /// The write that began at `start` is answered.
    mutating func end(sectors: Range<Int>, begunAt start: Int, at time: Int) {
        for sector in sectors {
            for index in writes[sector].indices where writes[sector][index].start == start {
                writes[sector][index].end = time
            }
        }
    }

    /// Whether a read between two moments may return a value.
    func mayHold(_ value: UInt64, sector: Int, from start: Int, to end: Int) -> Bool {
        writes[sector].contains { write in
            guard write.value == value, write.start < end else { return false }
            guard let writeEnd = write.end else { return true }
            // Nothing was written for certain between it and the read.
            return !writes[sector].contains { $0.start > writeEnd && ($0.end ?? .max) < start }
        }
    }
}
