internal import CWire
public import Virtio

/// A message of the front-end, decoded. File descriptors travel beside it: see `fdCount`.
///
/// vhost-user: "Front-end message types".
public enum FrontendMessage: Hashable, Sendable {
    /// Which virtio features does the device have?
    case getFeatures
    /// The virtio features that the driver took.
    case setFeatures(UInt64)
    /// The sender owns the session.
    case setOwner
    /// Deprecated by the specification.
    case resetOwner
    /// All of guest memory, a file descriptor for each region, in order.
    case setMemoryTable([MemoryRegion])
    /// The dirty log.
    case setLogBase(LogDescription)
    /// The eventfd that reports writes to the dirty log.
    case setLogEventFD
    /// How many descriptors a vring has.
    case setVringSize(VringState)
    /// Where a vring lies.
    case setVringAddress(VringAddress)
    /// Where a vring goes on.
    case setVringBase(VringState)
    /// Stop a vring; where does it go on?
    case getVringBase(VringState)
    /// The eventfd that the driver kicks.
    case setVringKick(VringFile)
    /// The eventfd that interrupts the driver.
    case setVringCall(VringFile)
    /// The eventfd that reports a broken vring.
    case setVringError(VringFile)
    /// Which protocol features does the back-end have?
    case getProtocolFeatures
    /// The protocol features that the front-end took.
    case setProtocolFeatures(ProtocolFeatures)
    /// How many vrings does the device have?
    case getQueueCount
    /// Enable (1) or disable (0) a vring.
    case setVringEnable(VringState)
    /// The socket for requests of the back-end.
    case setBackendRequestFD
    /// Read from the configuration space.
    case getConfiguration(ConfigurationAccess)
    /// Write to the configuration space.
    case setConfiguration(ConfigurationAccess)
    /// Make a log of requests in flight of these dimensions.
    case getInflightFD(InflightDescription)
    /// Use this log of requests in flight.
    case setInflightFD(InflightDescription)
    /// Back to the state before the driver took the device.
    case resetDevice
    /// How many memory regions can there be at once?
    case getMaximumMemorySlots
    /// One more region of guest memory.
    case addMemoryRegion(MemoryRegion)
    /// One region less; its file offset is not part of its identity.
    case removeMemoryRegion(MemoryRegion)
    /// The virtio device status.
    case setStatus(UInt64)
    /// What is the virtio device status?
    case getStatus
    /// Stop a vring, leaving requests in the inflight log; where does it go on?
    case getVringBaseWithoutDraining(VringState)
    /// A message that this codec does not read.
    case other(RequestKind, payload: [UInt8])

    /// The most regions in one table. `VHOST_MEMORY_BASELINE_NREGIONS`
    public static let maximumTableRegions = Int(WIRE_VHOST_USER_MAX_TABLE_REGIONS)

    /// Which message it is.
    public var kind: RequestKind {
        switch self {
        case .getFeatures: .getFeatures
        case .setFeatures: .setFeatures
        case .setOwner: .setOwner
        case .resetOwner: .resetOwner
        case .setMemoryTable: .setMemoryTable
        case .setLogBase: .setLogBase
        case .setLogEventFD: .setLogEventFD
        case .setVringSize: .setVringSize
        case .setVringAddress: .setVringAddress
        case .setVringBase: .setVringBase
        case .getVringBase: .getVringBase
        case .setVringKick: .setVringKick
        case .setVringCall: .setVringCall
        case .setVringError: .setVringError
        case .getProtocolFeatures: .getProtocolFeatures
        case .setProtocolFeatures: .setProtocolFeatures
        case .getQueueCount: .getQueueCount
        case .setVringEnable: .setVringEnable
        case .setBackendRequestFD: .setBackendRequestFD
        case .getConfiguration: .getConfiguration
        case .setConfiguration: .setConfiguration
        case .getInflightFD: .getInflightFD
        case .setInflightFD: .setInflightFD
        case .resetDevice: .resetDevice
        case .getMaximumMemorySlots: .getMaximumMemorySlots
        case .addMemoryRegion: .addMemoryRegion
        case .removeMemoryRegion: .removeMemoryRegion
        case .setStatus: .setStatus
        case .getStatus: .getStatus
        case .getVringBaseWithoutDraining: .getVringBaseWithoutDraining
        case .other(let kind, _): kind
        }
    }

    /// How many file descriptors come with the message. A range where senders differ.
    public var fdCount: ClosedRange<Int> {
        switch self {
        case .setMemoryTable(let regions): regions.count...regions.count
        case .setVringKick(let file), .setVringCall(let file), .setVringError(let file): file.hasFD ? 1...1 : 0...0
        case .setLogBase, .setLogEventFD, .setBackendRequestFD, .setInflightFD, .addMemoryRegion: 1...1
        // The specification says none; libblkio sends the region's. It is closed.
        case .removeMemoryRegion: 0...1
        case .other(let kind, _): kind.fdCountOfUnread
        default: 0...0
        }
    }
}

extension RequestKind {
    /// How many file descriptors come with a message whose payload is not read.
    fileprivate var fdCountOfUnread: ClosedRange<Int> {
        switch self {
        case .setGPUSocket, .setDeviceStateFD: 1...1
        case _ where Self.names[self] == nil: 0...Int.max
        default: 0...0
        }
    }
}
