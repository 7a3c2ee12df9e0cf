internal import CWire

/// What a disk is. Fixed while a worker serves it.
public struct DiskDescription: Sendable {
    /// Capacity in 512-byte sectors.
    public var sectors: UInt64
    /// Logical block size told to the guest, in bytes: 512 or 4096.
    public var logicalBlockSize: Int
    /// Physical block size told to the guest, in bytes: a power of two, at least the logical one.
    public var physicalBlockSize: Int
    /// Writes are refused.
    public var isReadOnly: Bool
    /// What GET_ID returns: at most 20 bytes.
    public var serial: String
    /// Number of virtqueues.
    public var queueCount: Int
    /// The largest ring that is accepted.
    public var maximumQueueSize: Int
    /// The storage can free space.
    public var supportsDiscard: Bool
    /// The storage can write zeroes without data.
    public var supportsWriteZeroes: Bool
    /// Packed rings are offered; split ones always are.
    public var offersPackedRings = true

    public init(
        sectors: UInt64, logicalBlockSize: Int = 512, physicalBlockSize: Int = 512, isReadOnly: Bool = false,
        serial: String = "", queueCount: Int = 1, maximumQueueSize: Int = 256, supportsDiscard: Bool = false,
        supportsWriteZeroes: Bool = false
    ) {
        self.sectors = sectors
        self.logicalBlockSize = logicalBlockSize
        self.physicalBlockSize = physicalBlockSize
        self.isReadOnly = isReadOnly
        self.serial = serial
        self.queueCount = queueCount
        self.maximumQueueSize = maximumQueueSize
        self.supportsDiscard = supportsDiscard
        self.supportsWriteZeroes = supportsWriteZeroes
    }

    /// The most data segments a driver should put in a request (`seg_max`): a header and a status besides still fit in
    /// a ring of 128, which is what front-ends use when nobody says otherwise.
    public static let maximumSegments: UInt32 = 126
    /// The largest segment a driver should use, in bytes (`size_max`).
    public static let maximumSegmentBytes: UInt32 = 1 << 20
    /// The most ranges in one DISCARD or WRITE_ZEROES (`max_discard_seg`, `max_write_zeroes_seg`).
    public static let maximumRanges = 32
    /// The largest such range, in sectors: 2 GiB, so that none holds up the queue for long.
    public static let maximumRangeSectors: UInt32 = 1 << 22

    /// The virtio feature bits that the disk offers (VIRTIO 1.2, 5.2.3 and 6).
    public var features: UInt64 {
        func bit(_ number: Int) -> UInt64 { 1 << UInt64(number) }
        var features =
            bit(WIRE_VIRTIO_F_VERSION_1) | bit(WIRE_VIRTIO_RING_F_INDIRECT_DESC) | bit(WIRE_VIRTIO_RING_F_EVENT_IDX)
            | bit(WIRE_VIRTIO_BLK_F_SIZE_MAX) | bit(WIRE_VIRTIO_BLK_F_SEG_MAX) | bit(WIRE_VIRTIO_BLK_F_BLK_SIZE)
            | bit(WIRE_VIRTIO_BLK_F_TOPOLOGY) | bit(WIRE_VIRTIO_BLK_F_FLUSH) | bit(WIRE_VIRTIO_BLK_F_CONFIG_WCE)
            | bit(WIRE_VIRTIO_BLK_F_MQ)
        if offersPackedRings { features |= bit(WIRE_VIRTIO_F_RING_PACKED) }
        if isReadOnly { return features | bit(WIRE_VIRTIO_BLK_F_RO) }
        if supportsDiscard { features |= bit(WIRE_VIRTIO_BLK_F_DISCARD) }
        if supportsWriteZeroes { features |= bit(WIRE_VIRTIO_BLK_F_WRITE_ZEROES) }
        return features
    }

    /// The configuration space (VIRTIO 1.2, 5.2.4).
    ///
    /// - Parameter writeback: what the driver's write cache byte says now.
    public func configuration(writeback: Bool) -> [UInt8] {
        var config = wire_virtio_blk_config()
        config.capacity = sectors
        config.size_max = Self.maximumSegmentBytes
        config.seg_max = min(Self.maximumSegments, UInt32(max(3, maximumQueueSize) - 2))
        config.blk_size = UInt32(logicalBlockSize)
        let ratio = max(1, physicalBlockSize / logicalBlockSize)
        config.topology.physical_block_exp = UInt8(ratio.trailingZeroBitCount)
        config.topology.min_io_size = UInt16(ratio)
        config.writeback = writeback ? 1 : 0
        config.num_queues = UInt16(queueCount)
        if features & (1 << UInt64(WIRE_VIRTIO_BLK_F_DISCARD)) != 0 {
            config.max_discard_sectors = Self.maximumRangeSectors
            config.max_discard_seg = UInt32(Self.maximumRanges)
            config.discard_sector_alignment = UInt32(physicalBlockSize / 512)
        }
        if features & (1 << UInt64(WIRE_VIRTIO_BLK_F_WRITE_ZEROES)) != 0 {
            config.max_write_zeroes_sectors = Self.maximumRangeSectors
            config.max_write_zeroes_seg = UInt32(Self.maximumRanges)
            config.write_zeroes_may_unmap = 1
        }
        return unsafe withUnsafeBytes(of: &config) { unsafe Array($0) }
    }

    /// Where the driver's write cache byte lies in the configuration space.
    public static let writebackOffset = 32
}
