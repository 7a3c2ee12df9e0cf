internal import Inflight
internal import Virtio

/// A ring of the kind that was agreed on, chosen when it is made: the simulated guest has one or the other. (A worker
/// is compiled for each kind.)
struct EitherRequestRing: RequestRing, ~Copyable {
    /// One of the two.
    private var split: SplitRequestRing?
    private var packed: PackedRequestRing?
    let size: UInt16
    private let isPacked: Bool

    init(
        _ areas: RingAreas, base: UInt32, region: InflightRegion?, queue: Int, plan: inout RecoveryPlan
    ) throws(InflightLogError) {
        isPacked = areas.features & RingLayout.packedFeature != 0
        size = areas.size
        if isPacked {
            packed = try PackedRequestRing(areas, base: base, region: region, queue: queue, plan: &plan)
        } else {
            split = try SplitRequestRing(areas, base: base, region: region, queue: queue, plan: &plan)
        }
    }

    /// Looks at whichever it is.
    private borrowing func look<Answer>(
        _ atSplit: (borrowing SplitRequestRing) -> Answer, _ atPacked: (borrowing PackedRequestRing) -> Answer
    ) -> Answer {
        switch split {
        case .some(let ring): return atSplit(ring)
        case .none: break
        }
        switch packed {
        case .some(let ring): return atPacked(ring)
        case .none: preconditionFailure("it is one of the two")
        }
    }

    var base: UInt32 { look({ $0.base }, { $0.base }) }

    mutating func availableCount() -> UInt16? { isPacked ? packed!.availableCount() : split!.availableCount() }

    func prefetchAvailable(_ count: UInt16) {
        look({ $0.prefetchAvailable(count) }, { $0.prefetchAvailable(count) })
    }

    mutating func take() -> UInt16? { isPacked ? packed!.take() : split!.take() }

    mutating func record(_ slot: UInt16) {
        if isPacked { packed!.record(slot) } else { split!.record(slot) }
    }

    func counter(of slot: UInt16) -> UInt64 { look({ $0.counter(of: slot) }, { $0.counter(of: slot) }) }

    mutating func returnUnusable(_ slot: UInt16) {
        if isPacked { packed!.returnUnusable(slot) } else { split!.returnUnusable(slot) }
    }

    func walk(
        from slot: UInt16, memory: inout GuestMemoryView, into segments: inout SegmentList
    ) -> ChainVerdict {
        look(
            { $0.walk(from: slot, memory: &memory, into: &segments) },
            { $0.walk(from: slot, memory: &memory, into: &segments) })
    }

    mutating func giveBack(_ slot: UInt16, written: UInt32) {
        if isPacked { packed!.giveBack(slot, written: written) } else { split!.giveBack(slot, written: written) }
    }

    mutating func publish() -> Bool { isPacked ? packed!.publish() : split!.publish() }

    mutating func enableKicks() -> Bool { isPacked ? packed!.enableKicks() : split!.enableKicks() }

    mutating func disableKicks() {
        if isPacked { packed!.disableKicks() } else { split!.disableKicks() }
    }
}
