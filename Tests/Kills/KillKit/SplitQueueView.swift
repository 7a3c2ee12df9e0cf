internal import CWire
internal import FrontendKit
internal import Platform
internal import Virtio

/// What a split queue's ring and log say of its requests. The one type here that knows their layout.
@safe struct SplitQueueView: QueueView {
    let size: Int
    private let available: UnsafeMutableRawPointer
    private let used: UnsafeMutableRawPointer
    private let log: UnsafeMutableRawPointer
    private let usedOffset: Int
    private let logOffset: Int

    /// - Parameter inflight: the mapped region, which outlives this.
    init(_ endpoint: QueueEndpoint, queue: Int, inflight: borrowing InflightMapping) {
        let (memory, ring) = (endpoint.memory, endpoint.ring)
        size = ring.size
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
        unsafe Int(head) < size && wire_load8(log + 16 + 16 * Int(head)) != 0
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
        hit.published = publishedHeads.count
        hit.returned = returnedCount
        hit.taken = max(0, flagged - hit.published - hit.returned)
        return hit
    }

    // MARK: Aiming

    func stores(for aim: KillAim) -> WatchedStores {
        func entries(_ heads: [UInt16], at offset: Int, length: Int) -> WatchedStores {
            let places = heads.map { StorePlace.log(logOffset + 16 + 16 * Int($0) + offset) }
            return WatchedStores(places: places, length: length, heads: heads)
        }
        return switch aim {
        case .counted: entries(recentHeads(4), at: 8, length: 8)
        case .logged, .clearing: entries(recentHeads(4), at: 0, length: 1)
        case .returned: WatchedStores(places: [.log(logOffset + 12)], length: 2)
        case .published: WatchedStores(places: [.guest(usedOffset + 2)], length: 2)
        case .cleared, .recoveryCleared: WatchedStores(places: [.log(logOffset + 14)], length: 2)
        case .recoveryClearing: entries(Array(publishedHeads.prefix(4)), at: 0, length: 1)
        default: preconditionFailure("\(aim) is no store to the log of a split ring")
        }
    }

    func isAt(_ aim: KillAim, flagsChanged: Bool) -> Bool {
        switch aim {
        case .logged: flagsChanged && usedIndex == loggedIndex
        case .clearing: flagsChanged && usedIndex != loggedIndex
        case .published: usedIndex != loggedIndex
        default: true
        }
    }
}
