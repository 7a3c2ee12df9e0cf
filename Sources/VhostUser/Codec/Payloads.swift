internal import CWire
internal import Virtio

/// A vring and a number that belongs to it: its size, its base, or whether it is enabled.
///
/// vhost-user: "A vring state description". Numbers from a peer: nothing here is trusted.
public struct VringState: Hashable, Sendable {
    /// Which vring.
    public var index: UInt32
    /// What the message is about (`num`).
    public var value: UInt32

    public init(index: UInt32, value: UInt32) {
        self.index = index
        self.value = value
    }

    init(_ wire: wire_vhost_vring_state) {
        self.init(index: wire.index, value: wire.num)
    }

    var wire: wire_vhost_vring_state {
        wire_vhost_vring_state(index: index, num: value)
    }
}

/// Where the three parts of a vring lie, as addresses of the front-end's mapping.
///
/// vhost-user: "A vring address description".
public struct VringAddress: Hashable, Sendable {
    /// Which vring.
    public var index: UInt32
    /// Whether writes to the used ring go to the dirty log; all flags as they came.
    public var flags: VringAddressFlags
    /// The descriptor table (`descriptor`).
    public var descriptorTable: UInt64
    /// The used ring (`used`).
    public var usedRing: UInt64
    /// The available ring (`available`).
    public var availableRing: UInt64
    /// The guest address under which the used ring is logged (`log`).
    public var logAddress: UInt64

    public init(
        index: UInt32, flags: VringAddressFlags = [], descriptorTable: UInt64, usedRing: UInt64, availableRing: UInt64,
        logAddress: UInt64 = 0
    ) {
        self.index = index
        self.flags = flags
        self.descriptorTable = descriptorTable
        self.usedRing = usedRing
        self.availableRing = availableRing
        self.logAddress = logAddress
    }

    init(_ wire: wire_vhost_vring_addr) {
        self.init(
            index: wire.index, flags: VringAddressFlags(rawValue: wire.flags), descriptorTable: wire.desc_user_addr,
            usedRing: wire.used_user_addr, availableRing: wire.avail_user_addr, logAddress: wire.log_guest_addr)
    }

    var wire: wire_vhost_vring_addr {
        wire_vhost_vring_addr(
            index: index, flags: flags.rawValue, desc_user_addr: descriptorTable, used_user_addr: usedRing,
            avail_user_addr: availableRing, log_guest_addr: logAddress)
    }
}

/// Flags of a vring's addresses.
public struct VringAddressFlags: OptionSet, Hashable, Sendable {
    public var rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Writes to the used ring are logged. `VHOST_VRING_F_LOG`
    public static let log = VringAddressFlags(rawValue: 1 << UInt32(WIRE_VHOST_VRING_F_LOG))
}

/// A vring and whether an eventfd comes with the message (SET_VRING_KICK, _CALL, _ERR).
///
/// vhost-user: bits 0 to 7 of the payload are the index, bit 8 is the *invalid FD* flag.
public struct VringFile: Hashable, Sendable {
    /// Which vring.
    public var index: UInt8
    /// False: there is no eventfd. The vring is to be polled, or its driver wants no interrupts.
    public var hasFD: Bool

    public init(index: UInt8, hasFD: Bool) {
        self.index = index
        self.hasFD = hasFD
    }

    init(_ kind: RequestKind, _ wire: UInt64) throws(ProtocolError) {
        let known = UInt64(WIRE_VHOST_USER_VRING_IDX_MASK | WIRE_VHOST_USER_VRING_NOFD_MASK)
        guard wire & ~known == 0 else { throw ProtocolError(kind, .reservedBits(wire & ~known)) }
        self.init(
            index: UInt8(truncatingIfNeeded: wire), hasFD: wire & UInt64(WIRE_VHOST_USER_VRING_NOFD_MASK) == 0)
    }

    var wire: UInt64 {
        UInt64(index) | (hasFD ? 0 : UInt64(WIRE_VHOST_USER_VRING_NOFD_MASK))
    }
}

/// A part of the configuration space.
///
/// vhost-user: "Virtio device config space".
public struct ConfigurationAccess: Hashable, Sendable {
    /// The first byte.
    public var offset: UInt32
    /// Why it is accessed: 0, the driver does; 1, live migration does.
    public var flags: UInt32
    /// The bytes. A request to read has as many as it asks for; what they hold means nothing.
    public var bytes: [UInt8]

    /// The most bytes that one message accesses. `VHOST_USER_MAX_CONFIG_SIZE`
    public static let maximumSize = Int(WIRE_VHOST_USER_MAX_CONFIG_SIZE)

    public init(offset: UInt32, flags: UInt32 = 0, bytes: [UInt8]) {
        self.offset = offset
        self.flags = flags
        self.bytes = bytes
    }

    init(_ kind: RequestKind, decoding payload: Span<UInt8>) throws(ProtocolError) {
        let headerSize = wireSize(wire_vhost_user_config_header.self)
        guard payload.count >= headerSize else {
            throw ProtocolError(kind, .wrongPayloadSize(payload.count, expected: headerSize))
        }
        let wire = payload.load(wire_vhost_user_config_header.self)
        guard wire.size <= UInt32(Self.maximumSize) else { throw ProtocolError(kind, .configurationTooLong(wire.size)) }
        guard payload.count == headerSize + Int(wire.size) else {
            throw ProtocolError(kind, .wrongPayloadSize(payload.count, expected: headerSize + Int(wire.size)))
        }
        self.init(offset: wire.offset, flags: wire.flags, bytes: payload.array(from: headerSize))
    }

    func append(to message: inout [UInt8]) {
        precondition(bytes.count <= Self.maximumSize, "at most \(Self.maximumSize) bytes of configuration in a message")
        message.append(
            structure: wire_vhost_user_config_header(offset: offset, size: UInt32(bytes.count), flags: flags))
        message += bytes
    }
}

/// The shared log of requests in flight: its place in its file and its dimensions.
///
/// vhost-user: "Inflight description".
public struct InflightDescription: Hashable, Sendable {
    /// Length in bytes (`mmap_size`).
    public var size: UInt64
    /// Where it begins in its file (`mmap_offset`).
    public var fileOffset: UInt64
    /// How many vrings it covers (`num_queues`).
    public var queueCount: UInt16
    /// How many descriptors a vring has at most (`queue_size`).
    public var queueSize: UInt16

    public init(size: UInt64, fileOffset: UInt64, queueCount: UInt16, queueSize: UInt16) {
        self.size = size
        self.fileOffset = fileOffset
        self.queueCount = queueCount
        self.queueSize = queueSize
    }

    init(_ wire: wire_vhost_user_inflight) {
        self.init(
            size: wire.mmap_size, fileOffset: wire.mmap_offset, queueCount: wire.num_queues, queueSize: wire.queue_size)
    }

    var wire: wire_vhost_user_inflight {
        wire_vhost_user_inflight(
            mmap_size: size, mmap_offset: fileOffset, num_queues: queueCount, queue_size: queueSize, padding: 0)
    }
}

/// The dirty log's place in its file.
///
/// vhost-user: "Log description".
public struct LogDescription: Hashable, Sendable {
    /// Length in bytes (`size`).
    public var size: UInt64
    /// Where it begins in its file (`offset`).
    public var fileOffset: UInt64

    public init(size: UInt64, fileOffset: UInt64) {
        self.size = size
        self.fileOffset = fileOffset
    }

    init(_ wire: wire_vhost_user_log) {
        self.init(size: wire.mmap_size, fileOffset: wire.mmap_offset)
    }

    var wire: wire_vhost_user_log {
        wire_vhost_user_log(mmap_size: size, mmap_offset: fileOffset)
    }
}

extension MemoryRegion {
    init(_ wire: wire_vhost_user_mem_region) {
        self.init(
            guestAddress: wire.guest_phys_addr, size: wire.memory_size, frontendAddress: wire.userspace_addr,
            fileOffset: wire.mmap_offset)
    }

    var wire: wire_vhost_user_mem_region {
        wire_vhost_user_mem_region(
            guest_phys_addr: guestAddress, memory_size: size, userspace_addr: frontendAddress, mmap_offset: fileOffset)
    }
}
