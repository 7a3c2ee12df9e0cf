internal import CWire

/// One entry of a descriptor table. Virtio 1.2, section 2.7.5.
public struct Descriptor: Hashable, Sendable {
    /// What a descriptor says about itself (`flags`).
    public struct Flags: OptionSet, Hashable, Sendable {
        public var rawValue: UInt16

        public init(rawValue: UInt16) {
            self.rawValue = rawValue
        }

        /// The chain goes on at `next` (VIRTQ_DESC_F_NEXT).
        public static let next = Flags(rawValue: UInt16(WIRE_VIRTQ_DESC_F_NEXT))
        /// The device writes the buffer; without it, it reads (VIRTQ_DESC_F_WRITE).
        public static let deviceWrites = Flags(rawValue: UInt16(WIRE_VIRTQ_DESC_F_WRITE))
        /// The buffer is a table of descriptors (VIRTQ_DESC_F_INDIRECT).
        public static let indirect = Flags(rawValue: UInt16(WIRE_VIRTQ_DESC_F_INDIRECT))
    }

    /// Guest address of the buffer.
    public var address: UInt64
    /// Length of the buffer in bytes.
    public var length: UInt32
    public var flags: Flags
    /// Index of the next descriptor, where `flags` has `next`.
    public var next: UInt16

    public init(address: UInt64, length: UInt32, flags: Flags = [], next: UInt16 = 0) {
        self.address = address
        self.length = length
        self.flags = flags
        self.next = next
    }

    /// As it lies in memory: 16 bytes, little-endian.
    public static let byteCount = 16

    var wire: wire_virtq_desc {
        wire_virtq_desc(addr: address, len: length, flags: flags.rawValue, next: next)
    }

    /// The bytes of a whole table, for an indirect one.
    public static func bytes(of table: [Descriptor]) -> [UInt8] {
        table.flatMap { descriptor in
            littleEndianBytes(descriptor.address) + littleEndianBytes(descriptor.length)
                + littleEndianBytes(descriptor.flags.rawValue) + littleEndianBytes(descriptor.next)
        }
    }
}

/// What the device returned. Virtio 1.2, section 2.7.8.
public struct UsedElement: Hashable, Sendable {
    /// Index of the head of the chain (`id`).
    public var head: Int
    /// Bytes that the device says it wrote into the chain (`len`).
    public var length: UInt32

    public init(head: Int, length: UInt32) {
        self.head = head
        self.length = length
    }
}

/// What a back-end did that no back-end may do.
public enum QueueViolation: Error, Hashable, Sendable, CustomStringConvertible {
    /// used.idx shows more entries than were outstanding.
    case usedIndexAhead(by: Int, outstanding: Int)
    /// A used id that is no descriptor.
    case idOutOfRange(UInt32, size: Int)
    /// A used id that is not in flight: never made available, or returned already.
    case idNotInFlight(UInt32)
    /// A request came back with its status byte as the driver left it.
    case statusNotWritten(kind: BlockRequestKind, sector: UInt64)
    /// A request says that more was written than it had room for.
    case usedLengthTooLarge(UInt32, writable: UInt32)
    /// Bytes beside the status byte, or the header, or the guards of a buffer have changed.
    case wroteOutside(kind: BlockRequestKind, sector: UInt64)

    public var description: String {
        switch self {
        case .usedIndexAhead(let count, let outstanding):
            "the back-end returned \(count) entries while \(outstanding) were outstanding"
        case .idOutOfRange(let id, let size):
            "the back-end returned id \(id) of a ring with \(size) descriptors"
        case .idNotInFlight(let id):
            "the back-end returned id \(id), which is not in flight"
        case .statusNotWritten(let kind, let sector):
            "the back-end returned \(kind) of sector \(sector) without a status"
        case .usedLengthTooLarge(let length, let writable):
            "the back-end says it wrote \(length) bytes into a request with room for \(writable)"
        case .wroteOutside(let kind, let sector):
            "the back-end wrote outside of what \(kind) of sector \(sector) gave it"
        }
    }
}

/// The bytes of a number as virtio stores it.
func littleEndianBytes<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

/// A number from bytes as virtio stores it.
func littleEndian<Value: FixedWidthInteger>(_ bytes: ArraySlice<UInt8>, as type: Value.Type = Value.self) -> Value {
    bytes.reversed().reduce(0) { ($0 << 8) | Value(truncatingIfNeeded: $1) }
}
