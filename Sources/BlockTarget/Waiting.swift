public import Custody
public import Inflight
internal import Platform
public import Telemetry

// Why a queue does not go on with requests that are there: its device is at its limit, or the host has no room.

/// Requests that wait for room on the host: they have been taken, nothing of them is under way, and the log has them.
@usableFromInline
struct HeldRequests {
    /// The oldest, or -1. The others follow in `RequestSlot.nextStalled`.
    @usableFromInline var head: Int32 = -1
    var tail: Int32 = -1
    var count = 0
    /// When they are tried again, in nanoseconds of CLOCK_MONOTONIC.
    @usableFromInline var nextTry: UInt64 = 0
    /// How long they wait until then.
    var delay = Self.leastDelay
    /// `RoomPolicy.retries`, as of the last try.
    var retries: UInt64 = 0
    /// The queue is about to be stopped: they are tried once more, and answered.
    var isEnding = false

    static let leastDelay: UInt64 = 100_000_000
    static let mostDelay: UInt64 = 3_200_000_000

    init() {}
}

// MARK: - Limits

extension BlockQueue where Ring: ~Copyable {
    /// Takes requests of a device that has a limit: as many as that lets it. The others stay in the ring.
    ///
    /// - Returns: how many were taken.
    @inlinable
    @inline(never)
    mutating func serviceLimited<Backend: StorageBackend & ~Copyable>(_ count: Int, _ backend: inout Backend) -> Int {
        for taken in 0..<count {
            if limit.holds(throttle, &meter) { return taken }
            guard let slot = ring.take() else { return taken }
            guard slot < ring.size, unsafe !storage.slots[Int(slot)].isActive else {
                returnUnusable(slot)
                throttle.charge(bytes: 0, at: meter.batchTime)
                continue
            }
            records.begin(slot)
            meter.take(slot)
            ring.record(slot)
            // What is refused has no data; the slot may have that of an earlier request.
            unsafe storage.slots[Int(slot)].totalBytes = 0
            unsafe storage.slots[Int(slot)].operation = .flush
            admit(slot, &backend)
            charge(slot)
        }
        limit.isOver()
        return count
    }

    /// Only reads and writes move data that counts.
    @inlinable
    mutating func charge(_ head: UInt16) {
        let slot = unsafe storage.slots + Int(head)
        let movesData = unsafe slot.pointee.operation == .read || slot.pointee.operation == .write
        throttle.charge(bytes: movesData ? (unsafe slot.pointee.totalBytes) : 0, at: meter.batchTime)
    }

    /// When the queue is to be looked at again although nothing calls for it, in nanoseconds of CLOCK_MONOTONIC; nil:
    /// never. To be asked after a turn that has found nothing to do, once.
    ///
    /// - Returns: also whether requests wait in the ring: then nobody need kick.
    @inlinable
    public mutating func takeDeadline() -> (time: UInt64, isAtLimit: Bool)? {
        let end = limit.takeEnd(throttle)
        guard held.head >= 0 else { return end.map { ($0, true) } }
        return (min(end ?? held.nextTry, held.nextTry), end != nil)
    }
}

// MARK: - Room on the host

extension BlockQueue where Ring: ~Copyable {
    /// Requests that wait for room on the host.
    public var heldCount: Int { held.count }

    /// No request waits for room on the host from now on (`true`): those that do are tried once more. Or again they do.
    public mutating func endHolding(_ value: Bool) { held.isEnding = value }

    /// A request found no room on the host, and waits for it. Nothing of it is under way.
    @usableFromInline
    @inline(never)
    mutating func hold(_ head: UInt16) {
        guard !held.isEnding else {
            complete(head, .ioError)
            return
        }
        setAside(head)
        if held.head < 0 {
            let now = monotonicNanoseconds()
            // The trouble before is over for long.
            if now > held.nextTry &+ HeldRequests.mostDelay { held.delay = HeldRequests.leastDelay }
            held.head = Int32(head)
            held.nextTry = now + held.delay
        } else {
            unsafe storage.slots[Int(held.tail)].nextStalled = Int32(head)
        }
        held.tail = Int32(head)
        held.count += 1
        meter.setHeld(held.count)
    }

    /// Tries requests again that wait for room on the host, if it is time to: when their time has come, when the
    /// operator says so, or when they are not to wait any more.
    ///
    /// - Returns: whether they were tried.
    @usableFromInline
    mutating func retryHeld<Backend: StorageBackend & ~Copyable>(_ backend: inout Backend) -> Bool {
        guard held.head >= 0 else { return false }
        let retries = roomPolicy.retries
        let isAsked = retries != held.retries || held.isEnding || !roomPolicy.holds
        guard isAsked || monotonicNanoseconds() >= held.nextTry else { return false }
        held.retries = retries
        held.delay = isAsked ? HeldRequests.leastDelay : min(held.delay * 2, HeldRequests.mostDelay)
        var (next, left) = (held.head, held.count)
        (held.head, held.tail, held.count) = (-1, -1, 0)
        while next >= 0, left > 0 {
            left -= 1
            let head = UInt16(next)
            let slot = unsafe storage.slots + Int(head)
            unsafe next = slot.pointee.nextStalled
            account.handle(head)
            let step = unsafe backend.start(&slot.pointee)
            carryOut(step, head, backend)
        }
        meter.setHeld(held.count)
        return true
    }
}
