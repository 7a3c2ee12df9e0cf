public import BlockTarget
internal import Inflight
public import Platform
public import Telemetry
internal import Uring
public import Virtio

/// A queue of a simulated disk, and the guest that drives it.
public final class SimulatedQueue {
    public let guest: SimulatedGuest
    fileprivate var queue: BlockQueue<EitherRequestRing>

    /// The queue's index in its disk.
    public let index: Int
    public var counts: QueueCounts { queue.counts }
    /// Requests taken and not yet returned.
    public var outstanding: Int { queue.outstanding }
    /// The guest's ring makes no sense.
    public var isBroken: Bool { queue.isBroken }
    /// Requests wait for room in the engine.
    public var hasStalled: Bool { queue.hasStalled }
    /// Requests that wait for room on the host.
    public var heldCount: Int { queue.heldCount }
    /// Index of the next available entry to take, of a split ring.
    public var nextAvailable: UInt16 { UInt16(truncatingIfNeeded: queue.base) }

    /// - Parameters:
    ///   - index: the queue's place in its disk.
    ///   - features: as agreed on; nil takes all that the disk offers.
    ///   - call: the eventfd that interrupts the guest, or -1.
    ///   - statistics: where it counts, and where the device's policy is; nil: in memory of its own.
    /// - Throws: when there is not enough memory.
    public init(
        _ guest: SimulatedGuest, disk: DiskDescription, index: Int = 0, features: UInt64? = nil,
        writesThrough: Bool = false, call: Int32 = -1, statistics: DeviceStatistics? = nil
    ) throws(Errno) {
        // The guest is of one kind, whatever is offered.
        let others = (features ?? disk.features) & ~RingLayout.packedFeature
        let features = others | (guest.isPacked ? RingLayout.packedFeature : 0)
        var plan = RecoveryPlan()
        let ring: EitherRequestRing
        do throws(InflightLogError) {
            ring = try EitherRequestRing(
                guest.areas(features: features), base: guest.base, region: nil, queue: 0, plan: &plan)
        } catch {
            // There is no log that could be wrong.
            throw .noMemory
        }
        queue = try BlockQueue(
            index: index, ring: ring, statistics: statistics, memory: guest.memory, disk: disk, features: features,
            writesThrough: writesThrough, call: call)
        self.index = index
        self.guest = guest
    }

    /// Marks what the device writes to guest memory in a log, from now on; the ring too.
    public func setDirtyLog(_ log: DirtyLog) {
        let start = guest.isPacked ? guest.ring.descriptors : guest.ring.used
        let ring = WriteMarks.GuestRange(
            address: start, count: UInt64(guest.ring.byteCount) - (start - RingPlacement.guestAddress))
        queue.setMarks(WriteMarks(log, ring: [ring], event: -1))
    }

    /// Whether a write is answered only when it is durable, from now on.
    public func setWritesThrough(_ value: Bool) { queue.setWritesThrough(value) }

    /// The queue is about to be stopped: no request waits for room on the host from now on.
    public func endHolding() { queue.endHolding(true) }
}

/// A disk, its guests and a backend, face to face: no socket, no thread, no time.
public final class SimulatedDisk<Backend: StorageBackend & ~Copyable> {
    /// The queues, each at the place of its index.
    public let queues: [SimulatedQueue]
    public private(set) var backend: Backend
    private var firstToResume = 0

    public init(_ backend: consuming Backend, _ queues: [SimulatedQueue]) {
        precondition(
            !queues.isEmpty && queues.indices.allSatisfy { queues[$0].index == $0 }, "each queue has its place")
        self.backend = backend
        self.queues = queues
    }

    /// One round, as a loop of a worker has it: starts what had stalled, takes requests, submits, takes completions,
    /// shows the guests what is done.
    ///
    /// - Returns: whether there was anything to do.
    @discardableResult
    public func turn() -> Bool {
        var worked = false
        firstToResume = (firstToResume + 1) % queues.count
        for queue in queues[firstToResume...] + queues[..<firstToResume] where queue.queue.hasWaiting {
            if queue.queue.resumeStalled(&backend) { worked = true }
        }
        for queue in queues where queue.queue.service(&backend) > 0 { worked = true }
        backend.submit()
        backend.runDeferredWork()
        while let completion = backend.nextCompletion() {
            worked = true
            let token = RequestToken(rawValue: completion.token)
            guard Int(token.queue) < queues.count else { continue }
            queues[Int(token.queue)].queue.finish(token: token, result: completion.result, &backend)
        }
        for queue in queues { queue.queue.publish() }
        backend.releaseCompletions()
        return worked
    }

    /// Turns until nothing is left to do, waiting for a real storage where there is one.
    ///
    /// - Parameter limit: of turns; a disk that is busy for longer has run away.
    /// - Returns: false when the limit was reached first, or the storage said nothing for ten seconds.
    public func settle(limit: Int = 100_000) -> Bool {
        for _ in 0..<limit {
            let worked = turn()
            let waits = backend.queuedCount > 0 || queues.contains { $0.hasStalled }
            if worked || waits { continue }
            let descriptors = backend.pollDescriptors
            guard !descriptors.isEmpty, queues.contains(where: { $0.outstanding > 0 }) else { return true }
            if waitForAny(descriptors, milliseconds: 10_000).isEmpty { return false }
        }
        return false
    }
}
