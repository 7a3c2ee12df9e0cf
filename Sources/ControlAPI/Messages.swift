// The control socket's requests and replies: JSON-RPC 2.0, one object a line. Field names are part of the interface.

/// Methods of the control socket.
public enum ControlMethod: String, Sendable, CaseIterable {
    /// Takes `DeviceParameters`, gives a `DeviceInfo`.
    case create
    /// Takes a `NameParameters`, gives an `Empty`.
    case delete
    /// Takes a `StatusParameters`, gives an array of `DeviceInfo`.
    case status
    /// Takes a `NameParameters`, gives a `KillResult`.
    case kill
    /// Takes `UpgradeParameters`, gives an `UpgradeResult`; before that, a `progress` notification for each device.
    case upgrade
    /// Takes `SupervisorParameters`, gives an `Empty`; then the supervisor replaces itself, and the connection ends.
    case upgradeSupervisor
    /// Gives an `Empty`, then an `event` notification for each `EventInfo`, for as long as the connection lasts.
    case events
    /// Takes `ReloadParameters`, gives a `ReloadResult`: applies the configuration files.
    case reload
    /// Gives a `ConfigurationInfo`.
    case configuration
    /// Makes every device that there is to be; gives a `DevicesResult`.
    case start
    /// Ends every device when its requests are finished, and forgets none; gives a `DevicesResult`.
    case stop
    /// Takes `ResizeParameters`, gives a `ResizeResult`.
    case resize
    /// Takes `LimitParameters`, gives a `DeviceInfo`.
    case limit
    /// Takes `SetParameters`, gives a `DeviceInfo`.
    case set
    /// Takes a `NameParameters`, gives a `RetryResult`: tries requests that wait for room on the host again.
    case resume

    /// Whether it leaves everything as it is.
    public var isReadOnly: Bool { self == .status || self == .events || self == .configuration }
}

/// A disk to be made.
public struct DeviceParameters: Codable, Hashable, Sendable {
    /// 1 to 64 letters, digits, dots, dashes and underscores.
    public var name: String
    /// The image: a raw file or a block device; absent for a disk that keeps nothing.
    public var file: String?
    /// Where front-ends connect; absent: NAME.sock in the supervisor's directory.
    public var socket: String?
    /// 1 to 64.
    public var queues: Int
    /// 2 to 1024 descriptors.
    public var queueSize: Int
    /// 1 to 15.
    public var threads: Int
    public var readOnly: Bool
    /// "direct" or "buffered".
    public var cache: String
    /// At most 20 bytes.
    public var serial: String
    /// 512 or 4096; absent: what the storage has.
    public var blockSize: Int?

    // Later than the first version: absent in what that has saved.

    /// Offer no packed rings; absent: false.
    public var splitRings: Bool?
    /// Keep all guest memory present while it is mapped; absent: false.
    public var pinMemory: Bool?
    /// The longest that a loop polls before it sleeps, 0 to 1000000 microseconds; absent: what the worker finds best.
    public var pollMicroseconds: Int?
    /// CPUs to bind the loop threads to, in turn, 1 to 64 numbers; absent: none.
    public var cpus: [Int]?
    /// Permissions of the socket, octal, such as "0660"; absent: as the supervisor's umask makes them.
    public var socketMode: String?
    /// A name or a number; absent: the supervisor's user.
    public var socketOwner: String?
    /// A name or a number; absent: the supervisor's group.
    public var socketGroup: String?
    /// The workers' share of the CPUs, 1 to 10000; absent: 100, as of other devices.
    public var cpuWeight: Int?
    /// The most memory that the workers may have, in bytes; absent: no limit.
    public var memoryMax: UInt64?
    /// The workers' share of the storage, 1 to 10000; absent: 100.
    public var ioWeight: Int?
    /// What may be done in a second; absent: without limit.
    public var limit: LimitInfo?
    /// What becomes of a request that finds no room on the host: "report", answered with an error; "hold", it waits.
    /// Absent: "report".
    public var onEnospc: String?
    /// The directory that is shared; absent: the device is a disk.
    public var share: ShareParameters?
    /// The configuration file that asks for it; absent for a device that was made by `create`. Not for callers to give.
    public var origin: String?

    public init(
        name: String, file: String?, socket: String? = nil, queues: Int = 1, queueSize: Int = 256, threads: Int = 1,
        readOnly: Bool = false, cache: String = "direct", serial: String = "", blockSize: Int? = nil
    ) {
        self.name = name
        self.file = file
        self.socket = socket
        self.queues = queues
        self.queueSize = queueSize
        self.threads = threads
        self.readOnly = readOnly
        self.cache = cache
        self.serial = serial
        self.blockSize = blockSize
    }
}

/// Names one device.
public struct NameParameters: Codable, Hashable, Sendable {
    public var name: String

    public init(name: String) { self.name = name }
}

/// Names one device, or all.
public struct StatusParameters: Codable, Hashable, Sendable {
    public var name: String?
    /// With what the devices have done; absent: false.
    public var statistics: Bool?

    public init(name: String? = nil, statistics: Bool? = nil) {
        self.name = name
        self.statistics = statistics
    }
}

/// Nothing.
public struct Empty: Codable, Hashable, Sendable {
    public init() {}
}

/// Which worker was killed.
public struct KillResult: Codable, Hashable, Sendable {
    public var pid: Int32

    public init(pid: Int32) { self.pid = pid }
}

/// A device as it is now.
public struct DeviceInfo: Codable, Hashable, Sendable {
    /// "serving", "waiting" for a front-end, "starting", or "failed".
    public var state: String
    public var disk: DeviceParameters
    /// Why it is not served, or not well; absent when all is well.
    public var problem: String?
    public var workers: [WorkerInfo]
    /// Times that a worker died and another took over.
    public var takeOvers: Int
    /// Front-ends that have connected.
    public var connections: Int
    /// Workers that have had the device.
    public var generation: UInt64
    /// Requests that the present worker has returned.
    public var completed: UInt64
    /// The step of an upgrade that is under way.
    public var upgrade: String?
    /// How the worker ended that died last; absent when none has.
    public var lastDeath: String?
    /// Requests that were answered with an error because workers had died over them.
    public var givenUp: UInt64
    /// What of its configuration has no effect here, as sentences; absent when nothing.
    public var notices: [String]?
    /// What the device has done; absent unless it was asked for.
    public var statistics: StatisticsInfo?

    public init(
        state: String, disk: DeviceParameters, problem: String?, workers: [WorkerInfo], takeOvers: Int,
        connections: Int, generation: UInt64, completed: UInt64, upgrade: String?, lastDeath: String?, givenUp: UInt64
    ) {
        self.state = state
        self.disk = disk
        self.problem = problem
        self.workers = workers
        self.takeOvers = takeOvers
        self.connections = connections
        self.generation = generation
        self.completed = completed
        self.upgrade = upgrade
        self.lastDeath = lastDeath
        self.givenUp = givenUp
    }
}

/// A worker of a device.
public struct WorkerInfo: Codable, Hashable, Sendable {
    public var id: UInt32
    public var pid: Int32
    /// "starting", "standby", "active", "freezing", "frozen", "superseded" or "quitting".
    public var phase: String
    public var version: String

    public init(id: UInt32, pid: Int32, phase: String, version: String) {
        self.id = id
        self.pid = pid
        self.phase = phase
        self.version = version
    }
}

/// What to upgrade, and how.
public struct UpgradeParameters: Codable, Hashable, Sendable {
    /// Names; none means all.
    public var devices: [String]
    /// The new program; absent: the present path, where it may lie by now.
    public var worker: String?
    /// So many devices first.
    public var canary: Int
    public var dryRun: Bool

    public init(devices: [String], worker: String?, canary: Int, dryRun: Bool) {
        self.devices = devices
        self.worker = worker
        self.canary = canary
        self.dryRun = dryRun
    }
}

/// What the supervisor becomes.
public struct SupervisorParameters: Codable, Hashable, Sendable {
    /// The new program; absent: what lies at the present one's path now.
    public var program: String?

    public init(program: String?) { self.program = program }
}

/// One device of an upgrade.
public struct ProgressInfo: Codable, Hashable, Sendable {
    public var device: String
    /// Why it runs the program before; absent when it was upgraded.
    public var failure: String?
    public var milliseconds: UInt64

    public init(device: String, failure: String?, milliseconds: UInt64) {
        self.device = device
        self.failure = failure
        self.milliseconds = milliseconds
    }
}

public struct UpgradeResult: Codable, Hashable, Sendable {
    public var devices: [ProgressInfo]

    public init(devices: [ProgressInfo]) { self.devices = devices }
}

/// Something that has happened.
public struct EventInfo: Codable, Hashable, Sendable {
    /// Counts all events since the supervisor started, from 1 on.
    public var sequence: UInt64
    /// Milliseconds since 1970.
    public var time: UInt64
    public var device: String
    public var worker: UInt32?
    public var kind: String
    public var text: String

    public init(sequence: UInt64, time: UInt64, device: String, worker: UInt32?, kind: String, text: String) {
        self.sequence = sequence
        self.time = time
        self.device = device
        self.worker = worker
        self.kind = kind
        self.text = text
    }
}
