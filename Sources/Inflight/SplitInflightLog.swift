public import CWire
public import Platform
internal import Virtio

/// The log of one split queue's requests in flight, in memory that outlives this process.
///
/// Each request is logged when it is taken and struck off when the guest has been shown its used element. A successor
/// reads from it what must be carried out again, in which order. vhost-user: "Queue region, split virtqueue".
///
/// **Order of stores** (one writer; each leaves a state that `recover` can read):
///
/// 1. taken: `counter[head]`, then `inflight[head] = 1`;
/// 2. returned: used element (ring), then `next[head]`, then `last_batch_head`;
/// 3. published: used.idx (ring), then `inflight[head] = 0` of the batch, then `used_idx`.
///
/// Only the order in which this process stores matters, because whoever reads does so after this process has died; so
/// the stores are volatile, not atomic.
@safe public struct SplitInflightLog: ~Copyable {
    /// nil: nobody keeps a log.
    @usableFromInline let base: UnsafeMutableRawPointer?
    private let region: InflightRegion?
    @usableFromInline let size: Int
    /// The order in which requests are taken; never 0, which others take for "fresh".
    @usableFromInline var counter: UInt64 = 1
    /// Returned, and not yet struck off.
    @usableFromInline var batch = 0

    /// What a batch that holds no request is headed by: an element that was returned without having been logged.
    @usableFromInline static var noHead: UInt16 { 0xffff }

    static func byteCount(queueSize: Int) -> Int { 16 + 16 * queueSize }
    /// DPDK's rounding, which every other implementation accepts.
    static func stride(queueSize: Int) -> Int { (byteCount(queueSize: queueSize) + 63) & ~63 }

    /// No log: every call does nothing.
    public static var none: SplitInflightLog { SplitInflightLog() }

    private init() {
        unsafe base = nil
        region = nil
        size = 0
    }

    /// Takes up the log of a queue. It says nothing valid before `recover`.
    ///
    /// - Parameter size: of the ring.
    /// - Throws: `invalidArgument` when the region has no such queue or too few entries for the ring.
    public init(_ region: InflightRegion, queue: Int, size: Int) throws(Errno) {
        guard queue < region.queueCount, size <= region.queueSize else { throw .invalidArgument }
        self.region = region
        self.size = size
        unsafe base = region.log(of: queue)
    }

    /// Whether anything is logged.
    @inlinable public var isKept: Bool { unsafe base != nil }

    @inlinable
    func entry(_ head: UInt16) -> UnsafeMutableRawPointer {
        precondition(Int(head) < size)
        return unsafe base! + (16 + 16 * Int(head))
    }

    /// The counter of a request in flight; 0 without a log.
    func counter(of head: UInt16) -> UInt64 { isKept ? unsafe wire_load64(entry(head) + 8) : 0 }

    /// A request has been taken from the available ring.
    @inlinable
    public mutating func take(_ head: UInt16) {
        guard isKept else { return }
        let entry = unsafe entry(head)
        unsafe wire_store64(entry + 8, counter)
        counter &+= 1
        unsafe wire_store8(entry, 1)
    }

    /// A request's used element has been written. Not yet published.
    @inlinable
    public mutating func giveBack(_ head: UInt16) {
        guard isKept else { return }
        unsafe wire_store16(entry(head) + 6, wire_load16(base! + 12))
        unsafe wire_store16(base! + 12, head)
        batch += 1
    }

    /// used.idx has been published: what has been given back is struck off.
    ///
    /// - Parameter usedIndex: as published.
    @inlinable
    public mutating func strikeOff(usedIndex: UInt16) {
        guard isKept else { return }
        var head = unsafe wire_load16(base! + 12)
        for _ in 0..<batch {
            // Whoever else has the log may write to it, or take it away.
            guard Int(head) < size else { break }
            let entry = unsafe entry(head)
            unsafe wire_store8(entry, 0)
            head = unsafe wire_load16(entry + 6)
        }
        batch = 0
        unsafe wire_store16(base! + 14, usedIndex)
    }

    /// A used element is about to be published alone that belongs to no logged request: the guest named a head that
    /// does not exist or that is in flight already. A successor that sees used.idx moved by it must not strike anything
    /// off.
    public mutating func giveBackNothing() {
        guard isKept else { return }
        precondition(batch == 0, "what was given back before is published first")
        unsafe wire_store16(base! + 12, Self.noHead)
    }
}

/// What a log and a ring say together after their worker has died.
public struct RecoveryPlan: Sendable, Equatable {
    /// The region had never been used: nothing is known of the time before.
    public var isFresh = false
    /// Requests that were taken and not returned, in the order in which they were taken.
    public var heads: [UInt16] = []
    /// Of those, the ones whose operation the kernel still had, or had finished: only their completion is waited for.
    public var adopted = 0
    /// Published, and not yet struck off when the worker died.
    public var struckOff = 0
    /// Requests that are answered with an error without being carried out: workers have died over them.
    public var givenUp: [UInt16] = []
    /// Of those, the ones that are given up for the first time.
    public var newlyGivenUp = 0
    /// Requests that cannot even be answered without a worker dying: they stay in flight, untouched.
    public var setAside: [UInt16] = []

    public init() {}
}

/// Why a log is not believed.
public enum InflightLogError: Error, Sendable, CustomStringConvertible {
    case version(UInt16)
    case batchTooLong(Int, size: Int)
    case brokenList(UInt16)
    case noRoom(queue: Int, size: Int)
    case noMemory(Errno)
    case otherRing(Int, size: Int)
    case outsideRing(PackedStanding)

    public var description: String {
        switch self {
        case .version(let version): "the inflight log has version \(version); 1 is known here"
        case .batchTooLong(let count, let size):
            "the inflight log is \(count) used elements behind a ring of \(size): it belongs to another ring"
        case .brokenList(let head): "the inflight log names a descriptor \(head) that the ring does not have"
        case .noRoom(let queue, let size):
            "the inflight region has no room for queue \(queue) with \(size) entries"
        case .noMemory(let error):
            "there is no memory for the log of requests in flight: \(error)"
        case .otherRing(let count, let size):
            "the inflight log is of a ring with \(count) descriptors, not \(size): it belongs to another ring"
        case .outsideRing(let standing):
            "the packed ring does not have the places \(standing.available.index) and \(standing.used.index)"
        }
    }
}

extension SplitInflightLog {
    /// Reads what the worker before has left, and makes it consistent with the ring. Doing it twice, or dying within
    /// it, changes nothing.
    ///
    /// - Parameter usedIndex: used.idx as the ring shows it.
    /// - Throws: when the log contradicts itself; it has not been touched then.
    public mutating func recover(usedIndex: UInt16) throws(InflightLogError) -> RecoveryPlan {
        var plan = RecoveryPlan()
        guard isKept else { return plan }
        let version = unsafe wire_load16(base! + 8)
        guard version <= UInt16(WIRE_INFLIGHT_VERSION) else { throw .version(version) }
        if version == 0 {
            initialise(usedIndex: usedIndex)
            plan.isFresh = true
            return plan
        }
        plan.struckOff = try strikeOffPublished(usedIndex)
        var found: [(counter: UInt64, head: UInt16)] = []
        for head in 0..<UInt16(size) where unsafe wire_load8(entry(head)) != 0 {
            found.append((unsafe wire_load64(entry(head) + 8), head))
        }
        found.sort { $0.counter < $1.counter }
        plan.heads = found.map(\.head)
        // Overflow would need an attacker who writes the log: the front-end, which then loses the order of its own
        // requests.
        counter = max(1, (found.last?.counter ?? 0) &+ 1)
        return plan
    }

    /// Strikes off the batch that was published last, as far as it is not.
    private mutating func strikeOffPublished(_ usedIndex: UInt16) throws(InflightLogError) -> Int {
        let count = Int(usedIndex &- (unsafe wire_load16(base! + 14)))
        guard count <= size else { throw .batchTooLong(count, size: size) }
        let first = unsafe wire_load16(base! + 12)
        for pass in 0..<2 {
            var head = first
            for _ in 0..<count where head != Self.noHead {
                guard Int(head) < size else { throw .brokenList(head) }
                // The whole list is looked at before anything is changed.
                if pass == 1 { unsafe wire_store8(entry(head), 0) }
                head = unsafe wire_load16(entry(head) + 6)
            }
        }
        unsafe wire_store16(base! + 14, usedIndex)
        return count
    }

    /// A region that nobody has used: the ring may have been used before, by a worker that kept no log.
    private mutating func initialise(usedIndex: UInt16) {
        for head in 0..<UInt16(size) {
            unsafe wire_store64(entry(head), 0)
            unsafe wire_store64(entry(head) + 8, 0)
        }
        unsafe wire_store64(base!, 0)
        unsafe wire_store16(base! + 10, UInt16(truncatingIfNeeded: size))
        unsafe wire_store16(base! + 12, Self.noHead)
        unsafe wire_store16(base! + 14, usedIndex)
        unsafe wire_store16(base! + 8, UInt16(WIRE_INFLIGHT_VERSION))
        batch = 0
        counter = 1
    }
}
