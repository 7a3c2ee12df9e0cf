internal import BlockTarget
internal import Custody
internal import Inflight
internal import Logging
internal import Platform
internal import Telemetry
internal import Uring
internal import Virtio

/// What a loop serves queues of: a disk, or a shared directory. The device's own part of the loop, with the engine that
/// its operations go to. The loop and its tables are written once and specialised for each.
protocol LoopService: ~Copyable, Sendable {
    associatedtype SplitQueue: ServedQueue & ~Copyable where SplitQueue.Service == Self
    associatedtype PackedQueue: ServedQueue & ~Copyable where PackedQueue.Service == Self

    /// Indices of queues are below it.
    var queueCount: Int { get }
    /// To start a request may be to carry it out, in a system call that waits for the storage.
    static var startMayWait: Bool { get }

    /// A queue with so many descriptors is to be attached later: sets its memory aside. Nobody waits now.
    mutating func prepare(queue: Int, size: Int)
    /// The device is this worker's from now on: goes on with what it shares with workers before.
    ///
    /// - Returns: completions of theirs that wait.
    mutating func takeUp() -> Int
    /// Started operations that the kernel has not taken yet.
    var queuedCount: Int { get }
    /// Hands started operations to the kernel.
    mutating func submit()
    /// Lets the kernel finish completion work that waits for this thread.
    mutating func runDeferredWork()
    /// Takes the next completion, or nil.
    mutating func nextCompletion() -> IOCompletion?
    /// Does what must be done before answers are shown.
    mutating func settle()
    /// Lets go of the completions taken so far: what they finished has been published.
    mutating func releaseCompletions()
    /// Readable when completions wait; none where everything finishes at once.
    var pollDescriptors: [Int32] { get }
    /// What went wrong so far, counted.
    var faults: StorageFaults { get }

    /// Takes up a change of the device. Queues are told besides.
    mutating func apply(_ change: DeviceChange)
}

/// A change of a device while its queues run.
enum DeviceChange: Sendable {
    /// The disk has so many sectors of 512 bytes from now on.
    case capacity(UInt64)
    /// A write is answered only when it is on stable storage, or is so no more.
    case writesThrough(Bool)
}

/// What is said, once, of a queue that can be served no more.
struct Breakage {
    var text: String
    var level: Logger.Level

    static let ring = Breakage(
        text: "the guest's ring makes no sense: the queue is served no more until it is set up anew", level: .error)
}

/// One queue of a device, on one kind of ring: takes requests, has the service carry them out, returns them.
protocol ServedQueue: ~Copyable {
    associatedtype Service: LoopService & ~Copyable

    /// Takes up a queue.
    ///
    /// - Parameters:
    ///   - areas: where its ring lies.
    ///   - records: of the operations under way.
    ///   - account: where it shows what it does.
    ///   - plan: is told what its log has.
    /// - Throws: `InflightLogError` when the log is not believed; `Errno` when there is no memory.
    init(
        _ attachment: QueueAttachment, areas: RingAreas, records: consuming RequestRecords,
        account: consuming QueueAccount, plan: inout RecoveryPlan, _ service: borrowing Service
    ) throws

    var index: Int { get }
    /// What is said of one that can be served no more.
    static var breakage: Breakage { get }
    /// Where the ring stands, as GET_VRING_BASE tells it.
    var base: UInt32 { get }
    /// What it has counted, and workers before this one.
    var counts: QueueCounts { get }
    /// The guest's ring makes no sense; it is served no more.
    var isBroken: Bool { get }
    /// Requests taken and not yet returned.
    var outstanding: Int { get }
    /// Whether all requests that were taken wait for room: nothing has been begun with any.
    var isIdleButForStalled: Bool { get }
    /// Requests wait for room.
    var hasStalled: Bool { get }
    /// Requests wait for room, in the engine or on the host.
    var hasWaiting: Bool { get }
    /// Operations under way that a worker before this one has started.
    var adoptedCount: Int { get }

    /// Takes a batch of requests from the ring and starts them.
    ///
    /// - Returns: how many were taken.
    mutating func service(_ service: inout Service) -> Int
    /// Goes on with the request of a completion.
    mutating func finish(_ completion: IOCompletion, _ service: inout Service)
    /// Starts again what found no room, until something finds none again.
    ///
    /// - Returns: whether any was started.
    mutating func resumeStalled(_ service: inout Service) -> Bool
    /// Shows the guest what has been returned, and interrupts it if it asks for that.
    mutating func publish()
    /// Asks for kicks, before sleep.
    ///
    /// - Returns: true when there is work already.
    mutating func enableKicks() -> Bool
    /// Polls from now on.
    mutating func disableKicks()
    /// When the queue is to be looked at again although nothing calls for it, in nanoseconds of CLOCK_MONOTONIC; nil:
    /// never. To be asked after a turn that has found nothing to do, once.
    ///
    /// - Returns: also whether requests wait in the ring: then nobody need kick.
    mutating func takeDeadline() -> (time: UInt64, isAtLimit: Bool)?
    /// Whether the queue is to be let go of: then nothing waits any more for room on the host.
    mutating func endHolding(_ isLeaving: Bool)

    /// Takes up what a worker before has taken and not returned, as far as the kernel has it.
    ///
    /// - Returns: those to be started, in the order in which they were taken.
    mutating func adopt(_ plan: inout RecoveryPlan, suspect: Suspect?, _ service: inout Service) -> [UInt16]
    /// Carries out what a worker before has taken and the kernel has not.
    mutating func start(_ heads: [UInt16], _ service: inout Service)

    /// Marks in another dirty log, or in none, from now on: requests in flight when they complete.
    mutating func setMarks(_ marks: WriteMarks)
    /// Sends interrupts somewhere else from now on: to an eventfd, or nowhere (-1).
    mutating func setCall(_ number: Int32)
    /// Interrupts the guest once: it may have missed one.
    func interrupt()
    /// Takes up a change of the device, or of this queue alone.
    mutating func apply(_ change: DeviceChange)
}
