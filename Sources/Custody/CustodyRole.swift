/// What a descriptor in custody is for. A role with an index names one descriptor of a device.
///
/// The numbers travel between builds of different versions: they are never given a new meaning.
public struct CustodyRole: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// The session record.
    public static let record = CustodyRole(rawValue: 1)
    /// The file of the inflight region that the device keeps for itself.
    public static let inflight = CustodyRole(rawValue: 2)
    /// The front-end's connection.
    public static let connection = CustodyRole(rawValue: 3)
    /// An open file of the image for this worker alone, index 0 for aligned and 1 for other transfers. The supervisor
    /// opens it for each worker and keeps none: see the fences of a cold start.
    public static let image = CustodyRole(rawValue: 4)
    /// Memory for bounce buffers.
    public static let bounce = CustodyRole(rawValue: 5)
    /// A file of guest memory; the index is the worker's.
    public static let memory = CustodyRole(rawValue: 6)
    /// Eventfds, by queue.
    public static let kick = CustodyRole(rawValue: 7)
    public static let call = CustodyRole(rawValue: 8)
    public static let error = CustodyRole(rawValue: 9)
    /// The dirty log.
    public static let dirtyLog = CustodyRole(rawValue: 10)
    /// The channel of SET_BACKEND_REQ_FD.
    public static let backendChannel = CustodyRole(rawValue: 11)
    /// An inflight region that the front-end has given, or that was made for it.
    public static let sharedInflight = CustodyRole(rawValue: 12)
    /// An eventfd that tells of writes to the dirty log.
    public static let dirtyLogEvent = CustodyRole(rawValue: 13)
    /// What the device's workers count (Telemetry's DeviceStatistics).
    public static let statistics = CustodyRole(rawValue: 14)
    /// A socket to the journal, if logs go there.
    public static let journal = CustodyRole(rawValue: 15)
    /// A sight of a thread of another worker (`ThreadSight`): what a worker that takes over needs to see that thread
    /// stop. The message's value names it: `ThreadName`. Never in custody: it is of one process.
    public static let thread = CustodyRole(rawValue: 16)

    /// A share's tables of nodes and open files.
    public static let shareTables = CustodyRole(rawValue: 17)

    /// /dev/fuse, whose requests are those of a mount.
    public static let fuseDevice = CustodyRole(rawValue: 18)
    /// Where the requests of a mount lie, by loop.
    public static let fuseRequests = CustodyRole(rawValue: 19)

    public var description: String {
        switch self {
        case .record: "session record"
        case .inflight: "inflight region"
        case .connection: "connection"
        case .image: "image"
        case .bounce: "bounce buffers"
        case .memory: "guest memory"
        case .kick: "kick"
        case .call: "call"
        case .error: "error"
        case .dirtyLog: "dirty log"
        case .backendChannel: "back-end channel"
        case .sharedInflight: "shared inflight region"
        case .dirtyLogEvent: "dirty log event"
        case .statistics: "statistics"
        case .journal: "journal"
        case .thread: "thread"
        case .shareTables: "share's tables"
        case .fuseDevice: "/dev/fuse"
        case .fuseRequests: "requests of the mount"
        default: "role \(rawValue)"
        }
    }
}

/// Names one descriptor of a device.
public struct CustodyKey: Hashable, Sendable, CustomStringConvertible {
    public var role: CustodyRole
    /// Which one of several, 0 to 4095.
    public var index: UInt16

    public init(_ role: CustodyRole, _ index: UInt16 = 0) {
        self.role = role
        self.index = index
    }

    public var description: String { index == 0 ? "\(role)" : "\(role) \(index)" }
}
