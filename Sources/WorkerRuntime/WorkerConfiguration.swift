public import BlockTarget
public import Platform

/// What a worker serves: where a disk keeps its data, or which directory is shared.
public enum Storage: Sendable, Equatable {
    /// A raw file or a block device.
    case image(path: String, cache: CacheMode)
    /// Memory of the worker: gone with it. Capacity in bytes.
    case memory(bytes: UInt64)
    /// Nothing at all: for measurements. Capacity in bytes.
    case null(bytes: UInt64)
    /// None: it is no disk that is served but a directory.
    case directory(path: String, ShareConfiguration)
}

/// Where a worker meets its front-end.
public enum Meeting: Sendable, Equatable {
    /// Listen at a path.
    case path(String, SocketAccess)
    /// An inherited socket that listens or is connected.
    case descriptor(Int32)
}

/// Whether a worker on its own gives up gaining privileges, and all system calls that it does not need, before it hears
/// a front-end.
public enum Sandbox: String, Sendable, CaseIterable {
    /// If the kernel lets it; if not, it says so.
    case auto
    /// Or it does not serve.
    case on
    case off
}

/// Everything a worker on its own is told at its start.
public struct WorkerConfiguration: Sendable, Equatable {
    public var meeting: Meeting
    public var storage: Storage
    public var isReadOnly = false
    /// 1 to 64. Of a share, one more than its request queues: hiprio comes first.
    public var queueCount = 1
    /// 2 to 1024 descriptors.
    public var maximumQueueSize = 1024
    /// Offer packed rings; split ones always are.
    public var offersPackedRings = true
    /// At most 20 bytes.
    public var serial = ""
    /// 512 or 4096 bytes; nil takes what the storage has.
    public var logicalBlockSize: Int?
    /// Loop threads, 1 to `queueCount`.
    public var threadCount = 1
    /// CPUs to bind the threads to, in turn; empty binds none.
    public var cpus: [Int] = []
    /// The longest a loop polls before it sleeps, in microseconds; 0 never polls.
    public var pollMicroseconds = 50

    /// Whether a worker on its own gives up what it does not need to serve.
    public var sandbox = Sandbox.off

    /// Serve an image on a file system whose locks are leases (`LockWorth`).
    public var allowsLeaseLocks = false
    /// How long to wait at the start for what a worker that has died has left under way, in seconds.
    public var predecessorSeconds = 300

    /// Keep all guest memory present while it is mapped.
    public var pinsGuestMemory = false
    /// Offer to leave requests in the inflight log when a queue stops (GET_VRING_BASE_INFLIGHT and _SKIP_DRAIN).
    public var parksRequests = false
    /// Let the disk become smaller while it is served.
    public var allowsShrinking = false

    /// How long a queue that is stopped may take to finish what the storage has of it, in milliseconds.
    public static let drainMilliseconds = 60_000
    public static let maximumQueueCount = 64
    public static let predecessorSecondsRange = 0...86_400
    public static let queueSizes = 2...1024
    public static let maximumPollMicroseconds = 1_000_000

    public init(meeting: Meeting, storage: Storage) {
        self.meeting = meeting
        self.storage = storage
    }
}
