internal import CWire

/// What a block request asks for (`type`); any number may be sent. Virtio 1.2, section 5.2.6.
public struct BlockRequestKind: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// VIRTIO_BLK_T_IN
    public static let read = BlockRequestKind(rawValue: UInt32(WIRE_VIRTIO_BLK_T_IN))
    /// VIRTIO_BLK_T_OUT
    public static let write = BlockRequestKind(rawValue: UInt32(WIRE_VIRTIO_BLK_T_OUT))
    /// VIRTIO_BLK_T_FLUSH
    public static let flush = BlockRequestKind(rawValue: UInt32(WIRE_VIRTIO_BLK_T_FLUSH))
    /// VIRTIO_BLK_T_GET_ID
    public static let getID = BlockRequestKind(rawValue: UInt32(WIRE_VIRTIO_BLK_T_GET_ID))
    /// VIRTIO_BLK_T_DISCARD
    public static let discard = BlockRequestKind(rawValue: UInt32(WIRE_VIRTIO_BLK_T_DISCARD))
    /// VIRTIO_BLK_T_WRITE_ZEROES
    public static let writeZeroes = BlockRequestKind(rawValue: UInt32(WIRE_VIRTIO_BLK_T_WRITE_ZEROES))

    /// Whether the data of the request goes from the device into guest memory.
    public var deviceWritesData: Bool { self == .read || self == .getID }

    public var description: String {
        switch self {
        case .read: "read"
        case .write: "write"
        case .flush: "flush"
        case .getID: "get-id"
        case .discard: "discard"
        case .writeZeroes: "write-zeroes"
        default: "request of type \(rawValue)"
        }
    }
}

/// How a block request ended (`status`). Virtio 1.2, section 5.2.6.
public struct BlockStatus: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt8

    public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// VIRTIO_BLK_S_OK
    public static let ok = BlockStatus(rawValue: UInt8(WIRE_VIRTIO_BLK_S_OK))
    /// VIRTIO_BLK_S_IOERR
    public static let ioError = BlockStatus(rawValue: UInt8(WIRE_VIRTIO_BLK_S_IOERR))
    /// VIRTIO_BLK_S_UNSUPP
    public static let unsupported = BlockStatus(rawValue: UInt8(WIRE_VIRTIO_BLK_S_UNSUPP))
    /// What the driver leaves in the status byte; no device writes it.
    public static let notWritten = BlockStatus(rawValue: 0xff)

    public var description: String {
        switch self {
        case .ok: "ok"
        case .ioError: "I/O error"
        case .unsupported: "unsupported"
        case .notWritten: "not written"
        default: "status \(rawValue)"
        }
    }
}

/// A block request as the fast level takes it: its data lies in one piece of guest addresses.
public struct BlockRequest: Sendable {
    public var kind: BlockRequestKind
    /// First sector, in units of 512 bytes; 0 where the request has none.
    public var sector: UInt64
    /// Guest address of the data: what is read or written, or the segments of DISCARD and WRITE_ZEROES.
    public var dataAddress: UInt64
    /// Length of the data in bytes; 0 for none.
    public var dataLength: UInt32
    /// How many descriptors the data is spread over, 1 to the queue's `maximumPieces`.
    public var pieces: Int
    /// Comes back with the completion.
    public var token: UInt64

    public init(
        _ kind: BlockRequestKind, sector: UInt64 = 0, dataAddress: UInt64 = 0, dataLength: UInt32 = 0, pieces: Int = 1,
        token: UInt64 = 0
    ) {
        self.kind = kind
        self.sector = sector
        self.dataAddress = dataAddress
        self.dataLength = dataLength
        self.pieces = pieces
        self.token = token
    }
}

/// A block request that came back.
public struct BlockCompletion: Sendable {
    public var kind: BlockRequestKind
    public var sector: UInt64
    /// As the request had it.
    public var dataAddress: UInt64
    /// As the request had it.
    public var token: UInt64
    public var status: BlockStatus
    /// Bytes that the device says it wrote, the status byte included.
    public var usedLength: UInt32
}

/// One range of a DISCARD or WRITE_ZEROES request. Virtio 1.2, section 5.2.6.
public struct BlockSegment: Hashable, Sendable {
    /// First sector, in units of 512 bytes.
    public var sector: UInt64
    /// Number of sectors.
    public var sectorCount: UInt32
    /// VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP in bit 0; the others are reserved.
    public var flags: UInt32

    public init(sector: UInt64, sectorCount: UInt32, flags: UInt32 = 0) {
        self.sector = sector
        self.sectorCount = sectorCount
        self.flags = flags
    }

    /// As it lies in memory.
    public static let byteCount = MemoryLayout<wire_virtio_blk_discard_write_zeroes>.size

    /// The bytes of a request's data.
    public static func bytes(of segments: [BlockSegment]) -> [UInt8] {
        segments.flatMap { segment in
            littleEndianBytes(segment.sector) + littleEndianBytes(segment.sectorCount)
                + littleEndianBytes(segment.flags)
        }
    }
}
