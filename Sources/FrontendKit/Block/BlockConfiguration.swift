/// The configuration space of a block device: `virtio_blk_config`. Virtio 1.2, section 5.2.4.
public struct BlockConfiguration: Hashable, Sendable {
    /// Size of the disk in sectors of 512 bytes.
    public var capacity: UInt64
    /// The most data descriptors of one request (`seg_max`).
    public var maximumSegments: UInt32
    /// Logical block size in bytes.
    public var blockSize: UInt32
    /// The write cache is on.
    public var writeback: Bool
    public var queueCount: UInt16
    /// In sectors.
    public var maximumDiscardSectors: UInt32
    public var maximumDiscardSegments: UInt32
    /// In sectors.
    public var discardSectorAlignment: UInt32
    /// In sectors.
    public var maximumWriteZeroesSectors: UInt32
    public var maximumWriteZeroesSegments: UInt32
    /// WRITE_ZEROES with the unmap flag may free the sectors.
    public var writeZeroesMayUnmap: Bool

    /// How many bytes of the configuration space are read.
    public static let byteCount = 60

    /// - Parameter bytes: the first 60 bytes of the configuration space, or more.
    public init(_ bytes: [UInt8]) {
        precondition(bytes.count >= Self.byteCount, "virtio_blk_config has \(Self.byteCount) bytes")
        capacity = littleEndian(bytes[0..<8])
        maximumSegments = littleEndian(bytes[12..<16])
        blockSize = littleEndian(bytes[20..<24])
        writeback = bytes[32] != 0
        queueCount = littleEndian(bytes[34..<36])
        maximumDiscardSectors = littleEndian(bytes[36..<40])
        maximumDiscardSegments = littleEndian(bytes[40..<44])
        discardSectorAlignment = littleEndian(bytes[44..<48])
        maximumWriteZeroesSectors = littleEndian(bytes[48..<52])
        maximumWriteZeroesSegments = littleEndian(bytes[52..<56])
        writeZeroesMayUnmap = bytes[56] != 0
    }
}
