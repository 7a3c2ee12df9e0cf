/// What a verifying load writes into one sector, so that any sector read back tells where it comes from.
///
/// The unit is the sector of 512 bytes and not a larger block: requests overlap and devices tear writes at sectors.
/// Words 0 to 3 name seed, sector, sequence number and queue; the other 60 are a stream keyed by these four. All of
/// them are compared: no flipped bit goes unnoticed, which is more than a checksum promises.
struct SectorStamp: Hashable {
    static let byteCount = 512
    private static let wordCount = byteCount / 8
    private static let magic: UInt64 = 0xba70_0001_5ec7_0125

    var seed: UInt64
    var sector: UInt64
    /// Number of the write among all writes of the load, from 1.
    var sequence: UInt64
    var queue: UInt64

    /// What the other words begin with.
    private var key: UInt64 {
        mixed(mixed(mixed(mixed(seed) ^ sector) ^ sequence) ^ queue)
    }

    /// Writes the sector.
    func write(to bytes: UnsafeMutableRawPointer) {
        let words = unsafe bytes.assumingMemoryBound(to: UInt64.self)
        unsafe words[0] = Self.magic ^ seed
        unsafe words[1] = sector
        unsafe words[2] = sequence
        unsafe words[3] = queue
        var word = key
        for index in 4..<Self.wordCount {
            word = Self.following(word)
            unsafe words[index] = word
        }
    }

    /// Reads a sector back.
    static func read(from bytes: UnsafeRawPointer) -> SectorContent {
        let words = unsafe bytes.assumingMemoryBound(to: UInt64.self)
        let stamp = unsafe SectorStamp(
            seed: words[0] ^ magic, sector: words[1], sequence: words[2], queue: words[3])
        var word = stamp.key
        var difference: UInt64 = 0
        var all: UInt64 = unsafe words[0] | words[1] | words[2] | words[3]
        for index in 4..<wordCount {
            word = following(word)
            let found = unsafe words[index]
            difference |= word ^ found
            all |= found
        }
        if all == 0 { return .zeros }
        return difference == 0 ? .stamp(stamp) : .other
    }

    private static func following(_ word: UInt64) -> UInt64 {
        let next = word &+ 0x9e37_79b9_7f4a_7c15
        return next ^ (next >> 29)
    }
}

/// What a sector holds.
enum SectorContent: Hashable {
    case zeros
    /// A sector that some load wrote, whole and undamaged.
    case stamp(SectorStamp)
    case other
}

/// How a sector that was read differs from everything that it may hold.
public enum MismatchKind: Int, Hashable, Sendable, CaseIterable {
    /// A write that had completed is not there, and no read has ever seen it.
    case lost
    /// Older content is back after newer had been seen: a write landed late, or twice.
    case stale
    /// The content of another sector.
    case misdirected
    /// Neither zeros nor anything that this load wrote.
    case corrupt
    /// The device said "ok" and left part of the buffer as it was.
    case notRead
}
