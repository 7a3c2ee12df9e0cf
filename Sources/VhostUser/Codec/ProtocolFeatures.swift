internal import CWire

/// Features of the protocol itself, as both sides negotiate them.
///
/// vhost-user: "Protocol features".
public struct ProtocolFeatures: OptionSet, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt64

    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    private init(bit: Int) {
        rawValue = 1 << UInt64(bit)
    }

    /// Several queues. `VHOST_USER_PROTOCOL_F_MQ`
    public static let mq = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_MQ)
    /// The dirty log comes as a file descriptor. `VHOST_USER_PROTOCOL_F_LOG_SHMFD`
    public static let logSharedMemory = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_LOG_SHMFD)
    /// The back-end announces a network device after migration. `VHOST_USER_PROTOCOL_F_RARP`
    public static let rarp = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_RARP)
    /// A request may ask for an acknowledgement. `VHOST_USER_PROTOCOL_F_REPLY_ACK`
    public static let replyAck = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_REPLY_ACK)
    /// The front-end tells the network's MTU. `VHOST_USER_PROTOCOL_F_MTU`
    public static let mtu = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_MTU)
    /// A channel for requests of the back-end. `VHOST_USER_PROTOCOL_F_BACKEND_REQ`
    public static let backendRequests = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_BACKEND_REQ)
    /// Rings of the other byte order. `VHOST_USER_PROTOCOL_F_CROSS_ENDIAN`
    public static let crossEndian = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_CROSS_ENDIAN)
    /// Sessions of a cryptography device. `VHOST_USER_PROTOCOL_F_CRYPTO_SESSION`
    public static let cryptoSession = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_CRYPTO_SESSION)
    /// Post-copy migration. `VHOST_USER_PROTOCOL_F_PAGEFAULT`
    public static let pageFault = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_PAGEFAULT)
    /// The back-end owns the configuration space. `VHOST_USER_PROTOCOL_F_CONFIG`
    public static let configuration = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_CONFIG)
    /// The back-end's requests may carry file descriptors. `VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD`
    public static let backendSendsFDs = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD)
    /// Notification areas that the guest maps. `VHOST_USER_PROTOCOL_F_HOST_NOTIFIER`
    public static let hostNotifier = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_HOST_NOTIFIER)
    /// A shared log of the requests in flight. `VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD`
    public static let inflight = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)
    /// The device can be reset. `VHOST_USER_PROTOCOL_F_RESET_DEVICE`
    public static let resetDevice = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_RESET_DEVICE)
    /// Notifications as messages. `VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS`
    public static let inbandNotifications = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)
    /// Memory regions come and go one by one. `VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS`
    public static let memorySlots = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)
    /// The back-end is told the virtio device status. `VHOST_USER_PROTOCOL_F_STATUS`
    public static let status = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_STATUS)
    /// Memory regions of Xen. `VHOST_USER_PROTOCOL_F_XEN_MMAP`
    public static let xenMapping = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_XEN_MMAP)
    /// Objects shared between devices. `VHOST_USER_PROTOCOL_F_SHARED_OBJECT`
    public static let sharedObject = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_SHARED_OBJECT)
    /// The device's inner state can be migrated. `VHOST_USER_PROTOCOL_F_DEVICE_STATE`
    public static let deviceState = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_DEVICE_STATE)
    /// A queue may stop with requests in flight. `VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT`
    public static let vringBaseInflight = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT)
    /// Ring addresses are guest addresses. `VHOST_USER_PROTOCOL_F_GPA_ADDRESSES`
    public static let guestAddresses = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_GPA_ADDRESSES)
    /// Memory regions of the device that the guest maps. `VHOST_USER_PROTOCOL_F_SHMEM`
    public static let sharedMemoryRegions = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_SHMEM)
    /// A queue may be told to stop with requests in flight. `VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN`
    public static let skipDrain = ProtocolFeatures(bit: WIRE_VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN)

    /// The specification's names; bits that have none here come last, as one hexadecimal number.
    public var description: String {
        var rest = self
        var words: [String] = []
        for (feature, name) in Self.names where rest.contains(feature) {
            words.append(name)
            rest.remove(feature)
        }
        if !rest.isEmpty { words.append(hexadecimal(rest.rawValue)) }
        return "[" + words.joined(separator: ", ") + "]"
    }

    /// Every feature that the specification names, in the order of their bits.
    static let names: [(ProtocolFeatures, String)] = [
        (.mq, "MQ"),
        (.logSharedMemory, "LOG_SHMFD"),
        (.rarp, "RARP"),
        (.replyAck, "REPLY_ACK"),
        (.mtu, "MTU"),
        (.backendRequests, "BACKEND_REQ"),
        (.crossEndian, "CROSS_ENDIAN"),
        (.cryptoSession, "CRYPTO_SESSION"),
        (.pageFault, "PAGEFAULT"),
        (.configuration, "CONFIG"),
        (.backendSendsFDs, "BACKEND_SEND_FD"),
        (.hostNotifier, "HOST_NOTIFIER"),
        (.inflight, "INFLIGHT_SHMFD"),
        (.resetDevice, "RESET_DEVICE"),
        (.inbandNotifications, "INBAND_NOTIFICATIONS"),
        (.memorySlots, "CONFIGURE_MEM_SLOTS"),
        (.status, "STATUS"),
        (.xenMapping, "XEN_MMAP"),
        (.sharedObject, "SHARED_OBJECT"),
        (.deviceState, "DEVICE_STATE"),
        (.vringBaseInflight, "GET_VRING_BASE_INFLIGHT"),
        (.guestAddresses, "GPA_ADDRESSES"),
        (.sharedMemoryRegions, "SHMEM"),
        (.skipDrain, "GET_VRING_BASE_SKIP_DRAIN"),
    ]
}

/// The bits of the virtio feature word that belong to vhost and not to the device.
public enum VhostFeatures {
    /// Every write to guest memory is logged. `VHOST_F_LOG_ALL`
    public static let logAll: UInt64 = 1 << UInt64(WIRE_VHOST_F_LOG_ALL)
    /// Protocol features can be negotiated. `VHOST_USER_F_PROTOCOL_FEATURES`
    public static let protocolFeatures: UInt64 = 1 << UInt64(WIRE_VHOST_USER_F_PROTOCOL_FEATURES)
    /// All of them.
    public static let all: UInt64 = logAll | protocolFeatures
}

/// A number as addresses and bit sets are written: `0x1f`.
func hexadecimal(_ value: some BinaryInteger) -> String {
    "0x" + String(value, radix: 16)
}
