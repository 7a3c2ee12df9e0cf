internal import CWire
internal import FrontendKit
internal import Platform
internal import Virtio

/// What a packed queue's ring and log say of its requests. The one type here that knows their layout.
@safe struct PackedQueueView: QueueView {
    private let size: Int
    private let ring: UnsafeMutableRawPointer
    private let log: UnsafeMutableRawPointer
    private let ringOffset: Int
    private let logOffset: Int

    /// - Parameter inflight: the mapped region, which outlives this.
    init(_ endpoint: QueueEndpoint, queue: Int, inflight: borrowing InflightMapping) {
        let (memory, areas) = (endpoint.memory, endpoint.ring)
        size = areas.size
        unsafe ring = memory.pointer(to: areas.descriptorTable, count: 16 * areas.size)
        ringOffset = Int(areas.descriptorTable - memory.regions[0].description.guestAddress)
        logOffset = inflight.offset(ofQueue: queue)
        unsafe log = inflight.base + logOffset
    }

    private func entryOffset(_ index: UInt16) -> Int { 32 + 32 * Int(index) }

    func isInFlight(_ head: UInt16) -> Bool {
        unsafe Int(head) < size && wire_load8(log + entryOffset(head)) != 0
    }

    // MARK: What the log says

    private var freeHead: UInt16 { unsafe wire_load16(log + 12) }
    private var oldFreeHead: UInt16 { unsafe wire_load16(log + 14) }

    /// Up to where the ring is, or is about to be, published; and up to where it was before.
    private var positions: (used: RingPosition, old: RingPosition) {
        let word = unsafe wire_load64(log + 16)
        return (
            RingPosition(index: UInt16(truncatingIfNeeded: word), wrap: word >> 32 & 0xff != 0),
            RingPosition(index: UInt16(truncatingIfNeeded: word >> 16), wrap: word >> 40 & 0xff != 0)
        )
    }

    /// A publication is on its way: between the store of the used position and that of both positions.
    private var isPublishing: Bool { positions.used != positions.old }

    /// The first used descriptor of the publication that is on its way has been marked: the guest has been shown it.
    private var isShown: Bool {
        let old = positions.old
        guard isPublishing, Int(old.index) < size else { return false }
        return unsafe PackedVirtqueue.isUsed(at: old, descriptors: ring, size: UInt16(size))
    }

    /// The list of free entries from one on.
    private func freeList(from head: UInt16) -> [UInt16] {
        var heads: [UInt16] = []
        var head = head
        while heads.count < size, Int(head) < size {
            heads.append(head)
            head = unsafe wire_load16(log + entryOffset(head) + 2)
        }
        return heads
    }

    /// Requests in flight, the one that was taken first in front.
    private var oldestHeads: [UInt16] {
        let free = Set(freeList(from: freeHead))
        let heads = (0..<UInt16(size)).filter { isInFlight($0) && !free.contains($0) }
        return heads.sorted { unsafe wire_load64(log + entryOffset($0) + 8) < wire_load64(log + entryOffset($1) + 8) }
    }

    var hit: KillHit {
        var hit = KillHit()
        let flagged = (0..<UInt16(size)).count { isInFlight($0) }
        // Entries in front of the old list belong to the batch that is on its way. One in the old list that says it is
        // in flight is half logged, or being struck off.
        let free = freeList(from: freeHead).filter { isInFlight($0) }
        if isShown {
            hit.published = free.count
        } else {
            let halfLogged = freeList(from: oldFreeHead).count { isInFlight($0) }
            hit.returned = max(0, free.count - halfLogged)
        }
        hit.taken = max(0, flagged - hit.published - hit.returned)
        return hit
    }

    // MARK: Aiming

    func stores(for aim: KillAim) -> WatchedStores {
        func entries(_ heads: [UInt16], at offset: Int, length: Int) -> WatchedStores {
            let heads = Array(heads.prefix(4))
            let places = heads.map { StorePlace.log(logOffset + entryOffset($0) + offset) }
            return WatchedStores(places: places, length: length, heads: heads)
        }
        // The next publication begins where the last one ends, which may be on its way.
        let next = positions.used
        return switch aim {
        case .counted: entries(freeList(from: freeHead), at: 8, length: 8)
        case .logged: entries(freeList(from: freeHead), at: 0, length: 1)
        case .clearing: entries(oldestHeads, at: 0, length: 1)
        case .recoveryClearing: entries(freeList(from: freeHead).filter { isInFlight($0) }, at: 0, length: 1)
        case .committed, .linked, .freed: WatchedStores(places: [.log(logOffset + 12)], length: 4)
        case .positioned, .cleared, .recoveryCleared: WatchedStores(places: [.log(logOffset + 16)], length: 8)
        case .returned: WatchedStores(places: [.guest(ringOffset + 16 * Int(next.index) + 8)], length: 4)
        case .published: flags(from: next, 0...0)
        // A request of this load has two to five descriptors, so the second of a batch is shown in one of these.
        case .marked: flags(from: next, 2...5)
        case .recoveryUnmarking: flags(from: positions.old, 2...5)
        default: preconditionFailure("\(aim) is no store to the log of a packed ring")
        }
    }

    /// The flags of the descriptors at some distances from a position.
    private func flags(from position: RingPosition, _ distances: ClosedRange<Int>) -> WatchedStores {
        let places = distances.map { StorePlace.guest(ringOffset + 16 * ((Int(position.index) + $0) % size) + 14) }
        return WatchedStores(places: places, length: 2)
    }

    func isAt(_ aim: KillAim, flagsChanged: Bool) -> Bool {
        switch aim {
        case .logged: flagsChanged && !isPublishing
        case .committed: !isPublishing && freeHead == oldFreeHead
        case .linked: !isPublishing && freeHead != oldFreeHead
        case .positioned: isPublishing
        case .returned, .marked: isPublishing && !isShown
        case .published: isShown
        case .clearing: flagsChanged && isShown
        case .freed: isShown && freeHead == oldFreeHead
        case .cleared: !isPublishing
        default: true
        }
    }
}
