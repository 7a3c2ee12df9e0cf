internal import CWire
public import VhostUser

/// How a front-end goes about a session: real ones differ in what they take, in which order, and what they ask for.
public struct FrontendBehaviour: Sendable {
    /// Which messages ask for an acknowledgement, where REPLY_ACK was negotiated.
    public enum Acknowledgement: Hashable, Sendable {
        case never
        /// Those that change the memory table, as QEMU does.
        case memory
        /// Every message, even one that has a reply of its own, as libblkio does.
        case everything
    }

    /// How the back-end learns of guest memory.
    public enum MemoryMessages: Hashable, Sendable {
        /// SET_MEM_TABLE, sent this many times, with at most 8 regions.
        case table(times: Int)
        /// ADD_MEM_REG for each region; needs CONFIGURE_MEM_SLOTS.
        case slots
    }

    /// When SET_VRING_ENABLE is sent, where bit 30 was negotiated.
    public enum Enabling: Hashable, Sendable {
        /// Before any other vring message.
        case first
        /// After the other messages of the same vring.
        case eachQueue
        /// After all other messages.
        case last
    }

    /// Virtio features to take if they are offered; all bits of the device and of the ring.
    public var features: UInt64
    /// Protocol features to take if they are offered.
    public var protocolFeatures: ProtocolFeatures
    public var acknowledgement: Acknowledgement
    public var memoryMessages: MemoryMessages
    public var enabling: Enabling
    /// How many bytes a read of the configuration asks for, 60 to 256: all of `virtio_blk_config`, or all that can be.
    public var configurationSize: Int
    /// Whether the back-end is asked for an inflight region, which it gets back after a reconnect.
    public var usesInflight: Bool

    public init(
        features: UInt64, protocolFeatures: ProtocolFeatures, acknowledgement: Acknowledgement,
        memoryMessages: MemoryMessages, enabling: Enabling, configurationSize: Int, usesInflight: Bool
    ) {
        self.features = features
        self.protocolFeatures = protocolFeatures
        self.acknowledgement = acknowledgement
        self.memoryMessages = memoryMessages
        self.enabling = enabling
        self.configurationSize = configurationSize
        self.usesInflight = usesInflight
    }

    /// QEMU's vhost-user-blk.
    public static let qemu = FrontendBehaviour(
        features: VirtioFeatures.block | VirtioFeatures.ring,
        protocolFeatures: [
            .mq, .logSharedMemory, .replyAck, .backendRequests, .configuration, .inflight, .status,
        ], acknowledgement: .memory,
        memoryMessages: .table(times: 1), enabling: .last, configurationSize: 60, usesInflight: true)

    /// The same front-end with packed rings, if they are offered.
    public var withPackedRings: FrontendBehaviour {
        var behaviour = self
        behaviour.features |= VirtioFeatures.packedRing
        return behaviour
    }

    /// libblkio's virtio-blk-vhost-user, which fio and QEMU's block layer use.
    public static let libblkio = FrontendBehaviour(
        features: (VirtioFeatures.block | VirtioFeatures.ring) & ~VirtioFeatures.indirectDescriptors,
        protocolFeatures: [.mq, .replyAck, .configuration, .memorySlots], acknowledgement: .everything,
        memoryMessages: .slots, enabling: .eachQueue, configurationSize: 60, usesInflight: false)

    /// SPDK's virtio-user initiator.
    public static let spdk = FrontendBehaviour(
        features: VirtioFeatures.block | VirtioFeatures.version1 | VirtioFeatures.indirectDescriptors,
        protocolFeatures: [.mq, .configuration], acknowledgement: .never, memoryMessages: .table(times: 2),
        enabling: .first, configurationSize: ConfigurationAccess.maximumSize, usesInflight: false)
}

/// Bits of the virtio feature word. Virtio 1.2, sections 5.2.3 and 6.
public enum VirtioFeatures {
    /// VIRTIO_F_INDIRECT_DESC
    public static let indirectDescriptors: UInt64 = 1 << UInt64(WIRE_VIRTIO_RING_F_INDIRECT_DESC)
    /// VIRTIO_F_EVENT_IDX
    public static let eventIndex: UInt64 = 1 << UInt64(WIRE_VIRTIO_RING_F_EVENT_IDX)
    /// VIRTIO_F_VERSION_1
    public static let version1: UInt64 = 1 << UInt64(WIRE_VIRTIO_F_VERSION_1)
    /// VIRTIO_F_RING_PACKED
    public static let packedRing: UInt64 = 1 << UInt64(WIRE_VIRTIO_F_RING_PACKED)
    /// What a driver of split rings takes.
    public static let ring: UInt64 = indirectDescriptors | eventIndex | version1

    /// VIRTIO_BLK_F_RO
    public static let blockReadOnly: UInt64 = 1 << UInt64(WIRE_VIRTIO_BLK_F_RO)
    /// VIRTIO_BLK_F_FLUSH
    public static let blockFlush: UInt64 = 1 << UInt64(WIRE_VIRTIO_BLK_F_FLUSH)
    /// VIRTIO_BLK_F_DISCARD
    public static let blockDiscard: UInt64 = 1 << UInt64(WIRE_VIRTIO_BLK_F_DISCARD)
    /// VIRTIO_BLK_F_WRITE_ZEROES
    public static let blockWriteZeroes: UInt64 = 1 << UInt64(WIRE_VIRTIO_BLK_F_WRITE_ZEROES)
    /// Every feature that belongs to the block device: bits 0 to 23.
    public static let block: UInt64 = (1 << 24) - 1
}

/// How long a front-end waits at most, in milliseconds.
public struct FrontendTimeouts: Sendable {
    /// Until the socket is there and answers.
    public var connect: Int32
    /// For the answer to a message.
    public var reply: Int32
    /// For the answer to GET_VRING_BASE, before which the back-end finishes what is in flight.
    public var drain: Int32

    public init(connect: Int32 = 60_000, reply: Int32 = 60_000, drain: Int32 = 60_000) {
        self.connect = connect
        self.reply = reply
        self.drain = drain
    }
}
