internal import CWire
internal import FrontendKit
internal import Platform
internal import Virtio

/// What a queue's ring and log say of its requests, read in the front-end's own mapping. The one type here that knows
/// the layout of rings and logs: of a split ring all of it, of a packed one which requests a kill hits.
@safe struct QueueView {
    /// A place that both sides map, for a watch.
    enum Place {
        /// Bytes from the start of guest memory.
        case guest(Int)
        /// Bytes from the start of the inflight file.
        case log(Int)
    }

    let size: Int
    let isPacked: Bool
    private let available: UnsafeMutableRawPointer
    private let used: UnsafeMutableRawPointer
    private let log: UnsafeMutableRawPointer
    private let usedOffset: Int
    private let logOffset: Int

    /// - Parameter inflight: the mapped region, which outlives this.
    init(_ endpoint: QueueEndpoint, queue: Int, inflight: borrowing InflightMapping) {
        let (memory, ring) = (endpoint.memory, endpoint.ring)
        size = ring.size
        isPacked = endpoint.isPacked
        unsafe available = memory.pointer(to: ring.availableRing, count: SplitRing.availableRingCount(ring.size))
        unsafe used = memory.pointer(to: ring.usedRing, count: SplitRing.usedRingCount(ring.size))
        usedOffset = Int(ring.usedRing - memory.regions[0].description.guestAddress)
        logOffset = inflight.offset(ofQueue: queue)
        unsafe log = inflight.base + logOffset
    }

    var usedIndex: UInt16 { unsafe wire_load16(used + 2) }
    /// used.idx as the log has it.
    var loggedIndex: UInt16 { unsafe wire_load16(log + 14) }
    private var lastBatchHead: UInt16 { unsafe wire_load16(log + 12) }
    private func next(_ head: UInt16) -> UInt16 { unsafe wire_load16(log + 16 + 16 * Int(head) + 6) }

    func isInFlight(_ head: UInt16) -> Bool {
        unsafe Int(head) < size && wire_load8(log + (isPacked ? 32 + 32 * Int(head) : 16 + 16 * Int(head))) != 0
    }

    /// The heads that were made available last, at most `count`.
    func recentHeads(_ count: Int) -> [UInt16] {
        let index = unsafe wire_load16(available + 2)
        var heads: [UInt16] = []
        for back in 1...UInt16(size) where heads.count < count {
            let head = unsafe wire_load16(available + 4 + 2 * (Int(index &- back) % size))
            if !heads.contains(head) { heads.append(head) }
        }
        return heads
    }

    /// Some requests in flight, at most `count`.
    func inFlightHeads(_ count: Int) -> [UInt16] {
        Array((0..<UInt16(size)).lazy.filter { isInFlight($0) }.prefix(count))
    }

    /// Requests of a packed ring that have been returned, whether the guest sees it yet or not, and not struck off.
    var packedReturnedCount: Int { packedFreeHeads.count { isInFlight($0) } }

    /// Requests that have been published and not struck off.
    var publishedHeads: [UInt16] {
        batch(Int(usedIndex &- loggedIndex)).filter { isInFlight($0) }
    }

    /// How many used elements lie behind used.idx, written and not published.
    private var returnedCount: Int {
        guard usedIndex == loggedIndex else { return 0 }
        for count in 1...64 {
            let heads = batch(count)
            guard heads.count == count, heads.allSatisfy({ isInFlight($0) }) else { return 0 }
            let elements = (0..<count).map { place in
                unsafe wire_load32(used + 4 + 8 * (Int(usedIndex &+ UInt16(place)) % size))
            }
            // The batch is linked from its last element to its first.
            if elements == heads.reversed().map({ UInt32($0) }) { return count }
        }
        return 0
    }

    /// The last `count` heads that were given back, the last one first.
    private func batch(_ count: Int) -> [UInt16] {
        var heads: [UInt16] = []
        var head = lastBatchHead
        while heads.count < min(count, size), Int(head) < size {
            heads.append(head)
            head = next(head)
        }
        return heads
    }

    /// What a worker that has just been killed has left.
    var hit: KillHit {
        var hit = KillHit()
        let flagged = (0..<UInt16(size)).count { isInFlight($0) }
        guard !isPacked else {
            hit.returned = packedReturnedCount
            hit.taken = max(0, flagged - hit.returned)
            return hit
        }
        hit.published = publishedHeads.count
        hit.returned = returnedCount
        hit.taken = max(0, flagged - hit.published - hit.returned)
        return hit
    }

    /// The list of free entries of a packed ring's log.
    private var packedFreeHeads: [UInt16] {
        var heads: [UInt16] = []
        var head = unsafe wire_load16(log + 12)
        while heads.count < size, Int(head) < size {
            heads.append(head)
            head = unsafe wire_load16(log + 32 + 32 * Int(head) + 2)
        }
        return heads
    }

    // MARK: Places

    var usedIndexPlace: Place { .guest(usedOffset + 2) }
    var lastBatchHeadPlace: Place { .log(logOffset + 12) }
    var loggedIndexPlace: Place { .log(logOffset + 14) }
    func flagPlace(_ head: UInt16) -> Place {
        .log(logOffset + (isPacked ? 32 + 32 * Int(head) : 16 + 16 * Int(head)))
    }
    func counterPlace(_ head: UInt16) -> Place { .log(logOffset + 16 + 16 * Int(head) + 8) }
}

/// How many requests a kill has hit, by how far they were.
public struct KillHit: Sendable {
    /// Taken and not returned: in the kernel or not.
    public var taken = 0
    /// Of those: the kernel had it. Known after a look only.
    public var running: Int?
    /// Of those: the kernel was done with it, the worker had not yet seen that.
    public var done: Int?
    /// Of those: in the log only.
    public var logged: Int? {
        guard let running, let done else { return nil }
        return max(0, taken - running - done)
    }
    /// Used element written, not published.
    public var returned = 0
    /// Published, not struck off.
    public var published = 0

    public var isAny: Bool { taken + returned + published > 0 }

    mutating func add(_ other: KillHit) {
        taken += other.taken
        returned += other.returned
        published += other.published
    }
}
