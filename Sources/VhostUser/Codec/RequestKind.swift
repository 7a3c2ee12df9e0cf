internal import CWire

/// What a front-end's message asks for. An open value: a peer may send any number.
///
/// vhost-user: "Front-end message types".
public struct RequestKind: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    private init(_ constant: Int) {
        rawValue = UInt32(constant)
    }

    /// `VHOST_USER_GET_FEATURES`
    public static let getFeatures = RequestKind(WIRE_VHOST_USER_GET_FEATURES)
    /// `VHOST_USER_SET_FEATURES`
    public static let setFeatures = RequestKind(WIRE_VHOST_USER_SET_FEATURES)
    /// `VHOST_USER_SET_OWNER`
    public static let setOwner = RequestKind(WIRE_VHOST_USER_SET_OWNER)
    /// `VHOST_USER_RESET_OWNER`
    public static let resetOwner = RequestKind(WIRE_VHOST_USER_RESET_OWNER)
    /// `VHOST_USER_SET_MEM_TABLE`
    public static let setMemoryTable = RequestKind(WIRE_VHOST_USER_SET_MEM_TABLE)
    /// `VHOST_USER_SET_LOG_BASE`
    public static let setLogBase = RequestKind(WIRE_VHOST_USER_SET_LOG_BASE)
    /// `VHOST_USER_SET_LOG_FD`
    public static let setLogEventFD = RequestKind(WIRE_VHOST_USER_SET_LOG_FD)
    /// `VHOST_USER_SET_VRING_NUM`
    public static let setVringSize = RequestKind(WIRE_VHOST_USER_SET_VRING_NUM)
    /// `VHOST_USER_SET_VRING_ADDR`
    public static let setVringAddress = RequestKind(WIRE_VHOST_USER_SET_VRING_ADDR)
    /// `VHOST_USER_SET_VRING_BASE`
    public static let setVringBase = RequestKind(WIRE_VHOST_USER_SET_VRING_BASE)
    /// `VHOST_USER_GET_VRING_BASE`
    public static let getVringBase = RequestKind(WIRE_VHOST_USER_GET_VRING_BASE)
    /// `VHOST_USER_SET_VRING_KICK`
    public static let setVringKick = RequestKind(WIRE_VHOST_USER_SET_VRING_KICK)
    /// `VHOST_USER_SET_VRING_CALL`
    public static let setVringCall = RequestKind(WIRE_VHOST_USER_SET_VRING_CALL)
    /// `VHOST_USER_SET_VRING_ERR`
    public static let setVringError = RequestKind(WIRE_VHOST_USER_SET_VRING_ERR)
    /// `VHOST_USER_GET_PROTOCOL_FEATURES`
    public static let getProtocolFeatures = RequestKind(WIRE_VHOST_USER_GET_PROTOCOL_FEATURES)
    /// `VHOST_USER_SET_PROTOCOL_FEATURES`
    public static let setProtocolFeatures = RequestKind(WIRE_VHOST_USER_SET_PROTOCOL_FEATURES)
    /// `VHOST_USER_GET_QUEUE_NUM`
    public static let getQueueCount = RequestKind(WIRE_VHOST_USER_GET_QUEUE_NUM)
    /// `VHOST_USER_SET_VRING_ENABLE`
    public static let setVringEnable = RequestKind(WIRE_VHOST_USER_SET_VRING_ENABLE)
    /// `VHOST_USER_SEND_RARP`
    public static let sendRARP = RequestKind(WIRE_VHOST_USER_SEND_RARP)
    /// `VHOST_USER_NET_SET_MTU`
    public static let setNetworkMTU = RequestKind(WIRE_VHOST_USER_NET_SET_MTU)
    /// `VHOST_USER_SET_BACKEND_REQ_FD`
    public static let setBackendRequestFD = RequestKind(WIRE_VHOST_USER_SET_BACKEND_REQ_FD)
    /// `VHOST_USER_IOTLB_MSG`
    public static let iotlbMessage = RequestKind(WIRE_VHOST_USER_IOTLB_MSG)
    /// `VHOST_USER_SET_VRING_ENDIAN`
    public static let setVringEndian = RequestKind(WIRE_VHOST_USER_SET_VRING_ENDIAN)
    /// `VHOST_USER_GET_CONFIG`
    public static let getConfiguration = RequestKind(WIRE_VHOST_USER_GET_CONFIG)
    /// `VHOST_USER_SET_CONFIG`
    public static let setConfiguration = RequestKind(WIRE_VHOST_USER_SET_CONFIG)
    /// `VHOST_USER_CREATE_CRYPTO_SESSION`
    public static let createCryptoSession = RequestKind(WIRE_VHOST_USER_CREATE_CRYPTO_SESSION)
    /// `VHOST_USER_CLOSE_CRYPTO_SESSION`
    public static let closeCryptoSession = RequestKind(WIRE_VHOST_USER_CLOSE_CRYPTO_SESSION)
    /// `VHOST_USER_POSTCOPY_ADVISE`
    public static let postcopyAdvise = RequestKind(WIRE_VHOST_USER_POSTCOPY_ADVISE)
    /// `VHOST_USER_POSTCOPY_LISTEN`
    public static let postcopyListen = RequestKind(WIRE_VHOST_USER_POSTCOPY_LISTEN)
    /// `VHOST_USER_POSTCOPY_END`
    public static let postcopyEnd = RequestKind(WIRE_VHOST_USER_POSTCOPY_END)
    /// `VHOST_USER_GET_INFLIGHT_FD`
    public static let getInflightFD = RequestKind(WIRE_VHOST_USER_GET_INFLIGHT_FD)
    /// `VHOST_USER_SET_INFLIGHT_FD`
    public static let setInflightFD = RequestKind(WIRE_VHOST_USER_SET_INFLIGHT_FD)
    /// `VHOST_USER_GPU_SET_SOCKET`
    public static let setGPUSocket = RequestKind(WIRE_VHOST_USER_GPU_SET_SOCKET)
    /// `VHOST_USER_RESET_DEVICE`
    public static let resetDevice = RequestKind(WIRE_VHOST_USER_RESET_DEVICE)
    /// `VHOST_USER_VRING_KICK`
    public static let vringKick = RequestKind(WIRE_VHOST_USER_VRING_KICK)
    /// `VHOST_USER_GET_MAX_MEM_SLOTS`
    public static let getMaximumMemorySlots = RequestKind(WIRE_VHOST_USER_GET_MAX_MEM_SLOTS)
    /// `VHOST_USER_ADD_MEM_REG`
    public static let addMemoryRegion = RequestKind(WIRE_VHOST_USER_ADD_MEM_REG)
    /// `VHOST_USER_REM_MEM_REG`
    public static let removeMemoryRegion = RequestKind(WIRE_VHOST_USER_REM_MEM_REG)
    /// `VHOST_USER_SET_STATUS`
    public static let setStatus = RequestKind(WIRE_VHOST_USER_SET_STATUS)
    /// `VHOST_USER_GET_STATUS`
    public static let getStatus = RequestKind(WIRE_VHOST_USER_GET_STATUS)
    /// `VHOST_USER_GET_SHARED_OBJECT`
    public static let getSharedObject = RequestKind(WIRE_VHOST_USER_GET_SHARED_OBJECT)
    /// `VHOST_USER_SET_DEVICE_STATE_FD`
    public static let setDeviceStateFD = RequestKind(WIRE_VHOST_USER_SET_DEVICE_STATE_FD)
    /// `VHOST_USER_CHECK_DEVICE_STATE`
    public static let checkDeviceState = RequestKind(WIRE_VHOST_USER_CHECK_DEVICE_STATE)
    /// `VHOST_USER_GET_SHMEM_CONFIG`
    public static let getSharedMemoryConfiguration = RequestKind(WIRE_VHOST_USER_GET_SHMEM_CONFIG)
    /// `VHOST_USER_GET_VRING_BASE_SKIP_DRAIN`
    public static let getVringBaseWithoutDraining = RequestKind(WIRE_VHOST_USER_GET_VRING_BASE_SKIP_DRAIN)

    /// The specification's name; the number of a message that has none here.
    public var description: String {
        Self.names[self] ?? "message \(rawValue)"
    }

    /// Every message that the specification names, by its name there.
    static let names: [RequestKind: String] = [
        .getFeatures: "GET_FEATURES",
        .setFeatures: "SET_FEATURES",
        .setOwner: "SET_OWNER",
        .resetOwner: "RESET_OWNER",
        .setMemoryTable: "SET_MEM_TABLE",
        .setLogBase: "SET_LOG_BASE",
        .setLogEventFD: "SET_LOG_FD",
        .setVringSize: "SET_VRING_NUM",
        .setVringAddress: "SET_VRING_ADDR",
        .setVringBase: "SET_VRING_BASE",
        .getVringBase: "GET_VRING_BASE",
        .setVringKick: "SET_VRING_KICK",
        .setVringCall: "SET_VRING_CALL",
        .setVringError: "SET_VRING_ERR",
        .getProtocolFeatures: "GET_PROTOCOL_FEATURES",
        .setProtocolFeatures: "SET_PROTOCOL_FEATURES",
        .getQueueCount: "GET_QUEUE_NUM",
        .setVringEnable: "SET_VRING_ENABLE",
        .sendRARP: "SEND_RARP",
        .setNetworkMTU: "NET_SET_MTU",
        .setBackendRequestFD: "SET_BACKEND_REQ_FD",
        .iotlbMessage: "IOTLB_MSG",
        .setVringEndian: "SET_VRING_ENDIAN",
        .getConfiguration: "GET_CONFIG",
        .setConfiguration: "SET_CONFIG",
        .createCryptoSession: "CREATE_CRYPTO_SESSION",
        .closeCryptoSession: "CLOSE_CRYPTO_SESSION",
        .postcopyAdvise: "POSTCOPY_ADVISE",
        .postcopyListen: "POSTCOPY_LISTEN",
        .postcopyEnd: "POSTCOPY_END",
        .getInflightFD: "GET_INFLIGHT_FD",
        .setInflightFD: "SET_INFLIGHT_FD",
        .setGPUSocket: "GPU_SET_SOCKET",
        .resetDevice: "RESET_DEVICE",
        .vringKick: "VRING_KICK",
        .getMaximumMemorySlots: "GET_MAX_MEM_SLOTS",
        .addMemoryRegion: "ADD_MEM_REG",
        .removeMemoryRegion: "REM_MEM_REG",
        .setStatus: "SET_STATUS",
        .getStatus: "GET_STATUS",
        .getSharedObject: "GET_SHARED_OBJECT",
        .setDeviceStateFD: "SET_DEVICE_STATE_FD",
        .checkDeviceState: "CHECK_DEVICE_STATE",
        .getSharedMemoryConfiguration: "GET_SHMEM_CONFIG",
        .getVringBaseWithoutDraining: "GET_VRING_BASE_SKIP_DRAIN",
    ]
}
