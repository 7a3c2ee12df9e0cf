public import Custody
internal import Telemetry
public import Uring

/// The seam between a queue and what stores its data.
///
/// One loop owns a backend. A request is started once; from then on each completion of its token is handed to `finish`,
/// until a step says that it is done. Whatever it still needs is in its slot.
public protocol StorageBackend: ~Copyable {
    /// The device is this worker's from now on: goes on with what it shares with workers before. Until then it is only
    /// held ready.
    ///
    /// - Returns: completions of theirs that wait.
    mutating func takeUp() -> Int

    /// Starts a request that has been checked, or starts it again after `.stalled` or `.held`.
    mutating func start(_ slot: inout RequestSlot) -> BackendStep

    /// Goes on with a request, one of whose operations has completed.
    ///
    /// - Parameter result: a count, or a negative error number.
    mutating func finish(_ slot: inout RequestSlot, result: Int32) -> BackendStep

    /// Hands started operations to the kernel.
    mutating func submit()

    /// Takes the next completion, or nil.
    mutating func nextCompletion() -> IOCompletion?

    /// Lets the kernel finish completion work that waits for this thread.
    mutating func runDeferredWork()

    /// Lets go of the completions taken so far: what they finished has been published.
    mutating func releaseCompletions()

    /// Where in the submission queue the operation is that was started last.
    var lastIndex: UInt32 { get }

    /// Whether the kernel had taken the operation at `index` of a worker before this one.
    func hadTaken(_ index: UInt32) -> Bool

    /// Goes on with a request whose operation a worker before this one has started: its completion will come here.
    ///
    /// - Parameters:
    ///   - slot: as a fresh start would find it.
    ///   - progress: as `progress(of:)` gave it for that operation.
    /// - Returns: false when the progress does not fit the request.
    mutating func adopt(_ slot: inout RequestSlot, _ progress: RequestProgress) -> Bool

    /// Keeps what an operation of a worker before uses, whose request is not gone on with, until `abandon`: the
    /// kernel may be at it still.
    mutating func hold(_ slot: inout RequestSlot, _ progress: RequestProgress)

    /// Lets go of what an adopted operation had, which has failed with its worker: the request can be started anew.
    mutating func abandon(_ slot: inout RequestSlot)

    /// Started operations that the kernel has not taken yet.
    var queuedCount: Int { get }

    /// Readable when completions wait; none for a backend that always finishes at once.
    var pollDescriptors: [Int32] { get }

    /// What went wrong so far, counted: since the device was made, for one that is in custody.
    var faults: StorageFaults { get }
}

/// A backend that finishes every request at once, or that nobody takes over.
extension StorageBackend where Self: ~Copyable {
    public mutating func takeUp() -> Int { 0 }
    @inlinable public mutating func releaseCompletions() {}
    @inlinable public var lastIndex: UInt32 { 0 }
    @inlinable public func hadTaken(_ index: UInt32) -> Bool { false }
    public mutating func adopt(_ slot: inout RequestSlot, _ progress: RequestProgress) -> Bool { false }
    public mutating func hold(_ slot: inout RequestSlot, _ progress: RequestProgress) {}
    public mutating func abandon(_ slot: inout RequestSlot) {}
}

/// How far a request has come.
public enum BackendStep: Sendable {
    /// Answer it.
    case done(BlockStatus)
    /// An operation is under way; its completion will come.
    case pending
    /// The same, and the operation ends with this worker: another one starts the request anew.
    case pendingHere
    /// There is no room for its operation here now: start it again later.
    case stalled
    /// There is no room for its data on the host, and it is to wait for that: start it again later.
    case held
}

/// Errors of the storage, by kind.
public struct StorageFaults: Sendable, Equatable {
    /// ENOSPC and EDQUOT: no room on the host.
    public var noSpace: UInt64 = 0
    /// EAGAIN and EINTR: tried again.
    public var retries: UInt64 = 0
    /// Short transfers that were continued.
    public var shortTransfers: UInt64 = 0
    /// The image is shorter than the disk.
    public var unexpectedEnds: UInt64 = 0
    /// EIO and every other error.
    public var errors: UInt64 = 0

    public init() {}

    /// What a meter has counted.
    init(_ meter: borrowing FaultMeter) {
        noSpace = meter[.noSpace]
        retries = meter[.retry]
        shortTransfers = meter[.shortTransfer]
        unexpectedEnds = meter[.unexpectedEnd]
        errors = meter[.error]
    }

    /// Adds another loop's counts.
    public mutating func add(_ other: StorageFaults) {
        noSpace += other.noSpace
        retries += other.retries
        shortTransfers += other.shortTransfers
        unexpectedEnds += other.unexpectedEnds
        errors += other.errors
    }

    /// Leaves what has been counted since `earlier`.
    public mutating func subtract(_ earlier: StorageFaults) {
        noSpace -= earlier.noSpace
        retries -= earlier.retries
        shortTransfers -= earlier.shortTransfers
        unexpectedEnds -= earlier.unexpectedEnds
        errors -= earlier.errors
    }
}
