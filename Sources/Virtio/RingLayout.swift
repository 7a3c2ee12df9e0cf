internal import CWire

/// How large the three areas of a ring are and how they are aligned (VIRTIO 1.2, 2.7 and 2.8.10).
public struct RingLayout: Hashable, Sendable {
    public struct Area: Hashable, Sendable {
        public let byteCount: Int
        /// A power of two.
        public let alignment: UInt64
    }

    /// The descriptor table, or the descriptor ring.
    public let descriptors: Area
    /// The available ring, or the driver event suppression.
    public let driver: Area
    /// The used ring, or the device event suppression.
    public let device: Area

    /// - Parameters:
    ///   - size: number of descriptors.
    ///   - features: as agreed with the driver.
    public init(size: Int, features: UInt64) {
        if features & Self.packedFeature != 0 {
            let events = Area(byteCount: PackedVirtqueue.eventSuppressionBytes, alignment: 4)
            descriptors = Area(byteCount: PackedVirtqueue.descriptorRingBytes(size: size), alignment: 16)
            driver = events
            device = events
        } else {
            descriptors = Area(byteCount: SplitVirtqueue.descriptorTableBytes(size: size), alignment: 16)
            driver = Area(
                byteCount: SplitVirtqueue.availableRingBytes(size: size, features: features), alignment: 2)
            device = Area(byteCount: SplitVirtqueue.usedRingBytes(size: size, features: features), alignment: 4)
        }
    }

    /// VIRTIO_F_RING_PACKED.
    public static let packedFeature: UInt64 = 1 << UInt64(WIRE_VIRTIO_F_RING_PACKED)
}
