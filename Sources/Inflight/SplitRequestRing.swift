internal import Platform
public import Virtio

/// A split virtqueue with its log. A slot is the head of a chain.
///
/// **Order of stores**, by call:
///
/// | Call | Stores, in order |
/// |---|---|
/// | `take` | none |
/// | `record` | log: `counter[head]`, `inflight[head] = 1` |
/// | `giveBack` | ring: used element; log: `next[head]`, `last_batch_head` |
/// | `publish` | ring: used.idx; log: `inflight[head] = 0` of the batch, `used_idx` |
/// | `returnUnusable` | log: `last_batch_head` = none; ring: used element |
@safe public struct SplitRequestRing: RequestRing, ~Copyable {
    @usableFromInline var ring: SplitVirtqueue
    @usableFromInline var log: SplitInflightLog

    /// - Parameter log: recovered; `ring` stands where it says.
    public init(_ ring: consuming SplitVirtqueue, log: consuming SplitInflightLog) {
        self.ring = ring
        self.log = log
    }

    public init(
        _ areas: RingAreas, base: UInt32, region: InflightRegion?, queue: Int, plan: inout RecoveryPlan
    ) throws(InflightLogError) {
        var log = SplitInflightLog.none
        if let region {
            do throws(Errno) {
                log = try SplitInflightLog(region, queue: queue, size: Int(areas.size))
            } catch {
                throw .noRoom(queue: queue, size: Int(areas.size))
            }
        }
        let usedIndex = unsafe SplitVirtqueue.usedIndex(at: areas.device)
        plan = try log.recover(usedIndex: usedIndex)
        let knowsBetter = log.isKept && !plan.isFresh
        ring = unsafe SplitVirtqueue(
            size: areas.size, features: areas.features, descriptors: areas.descriptors, available: areas.driver,
            used: areas.device,
            nextAvailable: knowsBetter
                ? usedIndex &+ UInt16(plan.heads.count) : UInt16(truncatingIfNeeded: base))
        self.log = log
    }

    @inlinable public var size: UInt16 { ring.size }
    public var base: UInt32 { UInt32(ring.nextAvailable) }

    @inlinable
    @inline(__always)
    public mutating func availableCount() -> UInt16? { ring.availableCount() }

    @inlinable
    @inline(__always)
    public func prefetchAvailable(_ count: UInt16) { ring.prefetchAvailable(count) }

    @inlinable
    @inline(__always)
    public mutating func take() -> UInt16? { ring.takeAvailable() }

    @inlinable
    @inline(__always)
    public mutating func record(_ slot: UInt16) { log.take(slot) }

    public func counter(of slot: UInt16) -> UInt64 { log.counter(of: slot) }

    public mutating func returnUnusable(_ slot: UInt16) {
        log.giveBackNothing()
        ring.writeUsed(head: slot, written: 0)
    }

    @inlinable
    @inline(__always)
    public func walk(
        from slot: UInt16, memory: inout GuestMemoryView, into segments: inout SegmentList
    ) -> ChainVerdict {
        ring.walk(from: slot, memory: &memory, into: &segments)
    }

    @inlinable
    @inline(__always)
    public mutating func giveBack(_ slot: UInt16, written: UInt32) {
        ring.writeUsed(head: slot, written: written)
        log.giveBack(slot)
    }

    @inlinable
    @inline(__always)
    public mutating func publish() -> Bool {
        let wantsInterrupt = ring.publish()
        log.strikeOff(usedIndex: ring.publishedIndex)
        return wantsInterrupt
    }

    public mutating func enableKicks() -> Bool { ring.enableKicks() }
    public mutating func disableKicks() { ring.disableKicks() }
}
