internal import BlockTarget
internal import Custody
internal import FileTarget
internal import Inflight
internal import Logging
internal import Platform
internal import Telemetry
internal import Uring
internal import Virtio

/// What brings a share's requests.
protocol ShareTransport {
    associatedtype Split: RequestRing & ~Copyable
    associatedtype Packed: RequestRing & ~Copyable

    /// What a queue says that can be served no more, and how loudly.
    static var breakage: Breakage { get }
    /// Queue 0 is hiprio.
    static var hasUrgentQueue: Bool { get }
    /// Of `FuseQueue`.
    static var waitingLimit: Int? { get }
}

/// A guest's driver, by virtqueues.
enum VirtioTransport: ShareTransport {
    typealias Split = SplitRequestRing
    typealias Packed = PackedRequestRing

    static var breakage: Breakage { .ring }
    static var hasUrgentQueue: Bool { true }
    static var waitingLimit: Int? { nil }
}

/// This host's kernel, by /dev/fuse.
enum DeviceTransport: ShareTransport {
    typealias Split = FuseDeviceRing
    typealias Packed = FuseDeviceRing

    static var breakage: Breakage { Breakage(text: "it is mounted no more", level: .info) }
    static var hasUrgentQueue: Bool { false }
    static var waitingLimit: Int? { FuseDeviceRing.slotCount / 2 }
}

/// A loop's part of a shared directory: a FUSE server on an engine of its own. The tables of nodes and files are all
/// loops' (`ShareSession`).
struct ShareService<Transport: ShareTransport, Engine: IOEngine & ~Copyable & Sendable>: ~Copyable, @unchecked Sendable,
    LoopService
{
    typealias SplitQueue = ShareQueue<Transport.Split, Transport, Engine>
    typealias PackedQueue = ShareQueue<Transport.Packed, Transport, Engine>

    fileprivate var server: FuseServer<Passthrough, Engine>
    fileprivate let session: ShareSession
    fileprivate let readySlots: ReadySlots<FuseSlots>

    /// - Parameter isAlone: nobody takes over from this worker.
    /// - Throws: when there is no memory.
    init(_ session: ShareSession, engine: consuming Engine, isAlone: Bool) throws(Errno) {
        self.session = session
        readySlots = ReadySlots(
            queues: session.description.requestQueueCount + 1,
            make: { count throws(Errno) in try FuseSlots(count: count) }, count: { $0.count })
        server = try FuseServer(
            session.description, try Passthrough(session, isAlone: isAlone), engine: engine)
    }

    var queueCount: Int { session.description.requestQueueCount + 1 }
    static var startMayWait: Bool { true }
    mutating func prepare(queue: Int, size: Int) { readySlots.prepare(size, queue: queue) }
    mutating func takeUp() -> Int { server.takeUp() }
    var queuedCount: Int { server.queuedCount }
    mutating func submit() { server.submit() }
    mutating func runDeferredWork() { server.runDeferredWork() }
    mutating func settle() { server.tidy() }
    mutating func nextCompletion() -> IOCompletion? { server.nextCompletion() }
    mutating func releaseCompletions() { server.releaseCompletions() }
    var pollDescriptors: [Int32] { server.pollDescriptor.map { [$0] } ?? [] }
    // Errors are the host's, and answered as such: they are no faults of a storage.
    var faults: StorageFaults { StorageFaults() }

    mutating func apply(_ change: DeviceChange) {}
}

/// A share's queue, as a loop serves it.
struct ShareQueue<
    Ring: RequestRing & ~Copyable, Transport: ShareTransport, Engine: IOEngine & ~Copyable & Sendable
>: ~Copyable, ServedQueue {
    typealias Service = ShareService<Transport, Engine>

    private var queue: FuseQueue<Ring>
    /// Of the session, as of the last try of those that wait for a lock; and when they try again in any case: a lock
    /// may be given up on the host, where nobody tells.
    private var seenReleases: UInt64 = 0
    private var nextTry: UInt64 = 0
    /// Nobody waits for a lock any more: the queue is to be let go of.
    private var isEnding = false

    static var breakage: Breakage { Transport.breakage }

    private static var retryNanoseconds: UInt64 { 10_000_000 }

    init(
        _ attachment: QueueAttachment, areas: RingAreas, records: consuming RequestRecords,
        account: consuming QueueAccount, plan: inout RecoveryPlan, _ service: borrowing Service
    ) throws {
        let ring = try Ring(
            areas, base: attachment.base, region: attachment.inflight, queue: attachment.index, plan: &plan)
        queue = try FuseQueue(
            index: attachment.index, ring: ring, records: records, account: account,
            statistics: attachment.statistics, isUrgent: Transport.hasUrgentQueue && attachment.index == 0,
            waitingLimit: Transport.waitingLimit, memory: attachment.memory,
            call: attachment.signals.call?.number ?? -1,
            slots: service.readySlots.take(Int(attachment.size), queue: attachment.index))
    }

    var index: Int { queue.index }
    var base: UInt32 { queue.base }
    var counts: QueueCounts { queue.counts }
    var isBroken: Bool { queue.isBroken }
    var outstanding: Int { queue.outstanding }
    var isIdleButForStalled: Bool { queue.isIdleButForStalled }
    var hasStalled: Bool { queue.hasStalled }
    var hasWaiting: Bool { queue.hasStalled || queue.hasWaiting }
    var adoptedCount: Int { queue.adoptedCount }

    mutating func service(_ service: inout Service) -> Int { queue.service(&service.server) }

    mutating func finish(_ completion: IOCompletion, _ service: inout Service) {
        queue.finish(token: RequestToken(rawValue: completion.token), result: completion.result, &service.server)
    }

    mutating func resumeStalled(_ service: inout Service) -> Bool {
        var worked = queue.hasStalled && queue.resumeStalled(&service.server)
        guard queue.hasWaiting else { return worked }
        if isEnding {
            queue.endWaits(&service.server)
            return true
        }
        let (releases, now) = (service.session.lockReleases, monotonicNanoseconds())
        guard releases != seenReleases || now >= nextTry else { return worked }
        (seenReleases, nextTry) = (releases, now + Self.retryNanoseconds)
        if queue.resumeWaiting(&service.server) { worked = true }
        return worked
    }

    mutating func publish() { queue.publish() }
    mutating func enableKicks() -> Bool { queue.enableKicks() }
    mutating func disableKicks() { queue.disableKicks() }
    mutating func takeDeadline() -> (time: UInt64, isAtLimit: Bool)? {
        let end = queue.takeLimitEnd()
        guard queue.hasWaiting else { return end.map { ($0, true) } }
        return (min(end ?? nextTry, nextTry), end != nil)
    }
    mutating func endHolding(_ isLeaving: Bool) { isEnding = isLeaving }

    mutating func adopt(
        _ plan: inout RecoveryPlan, suspect: Suspect?, _ service: inout Service
    ) -> [UInt16] {
        queue.adopt(&plan, suspect: suspect, &service.server)
    }

    mutating func start(_ heads: [UInt16], _ service: inout Service) {
        queue.start(heads, &service.server)
    }

    // A share offers no dirty log.
    mutating func setMarks(_ marks: WriteMarks) {}
    mutating func setCall(_ number: Int32) { queue.setCall(number) }
    func interrupt() { queue.interrupt() }
    mutating func apply(_ change: DeviceChange) {}
}
