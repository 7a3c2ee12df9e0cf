public import Virtio

/// A packed virtqueue with its log. A slot is an entry of the log.
///
/// **Order of stores**, by call:
///
/// | Call | Stores, in order |
/// |---|---|
/// | `take` | log: copies of the descriptors, in free entries |
/// | `record` | log: `last`, `num`, `counter`, `inflight = 1`, both free heads |
/// | `giveBack` | none that anybody shares: the batch is kept here until it is published |
/// | `publish` | log: links of the batch, `free_head`, `used` position; ring: id and length of each, flags of each but
/// the first, flags of the first; log: `inflight = 0` of the batch, both free heads, both positions |
///
/// A batch is linked into the free list only when it is published, so that no request is taken in between: the log has
/// one free list that is committed, not two.
///
/// A buffer id is the guest's business: it is returned as it came. A chain that has no end within the descriptors that
/// can be available, or a part that is not available, leaves no place to go on: the ring is broken then.
@safe public struct PackedRequestRing: RequestRing, ~Copyable {
    @usableFromInline var ring: PackedVirtqueue
    @usableFromInline var log: PackedInflightLog
    /// Descriptors that can be available: those of no request that was taken and not published.
    @usableFromInline var room: UInt16
    @usableFromInline var isBroken = false
    /// Given back, in the order of the used descriptors; the first `batchCount` count.
    @usableFromInline let batch: UnsafeMutablePointer<Returned>
    @usableFromInline var batchCount = 0

    /// A request that was given back.
    @usableFromInline
    struct Returned {
        @usableFromInline var slot: UInt16
        @usableFromInline var written: UInt32

        @usableFromInline init(slot: UInt16, written: UInt32) {
            self.slot = slot
            self.written = written
        }
    }

    public init(
        _ areas: RingAreas, base: UInt32, region: InflightRegion?, queue: Int, plan: inout RecoveryPlan
    ) throws(InflightLogError) {
        var log = try PackedInflightLog(region, queue: queue, size: areas.size)
        var standing = PackedStanding(base: base)
        plan = unsafe try log.recover(&standing, descriptors: areas.descriptors)
        ring = unsafe PackedVirtqueue(
            size: areas.size, features: areas.features, descriptors: areas.descriptors, driverEvents: areas.driver,
            deviceEvents: areas.device, nextAvailable: standing.available, nextUsed: standing.used)
        room = areas.size - UInt16(standing.inFlight)
        unsafe batch = .allocate(capacity: Int(areas.size))
        self.log = log
    }

    deinit {
        unsafe batch.deallocate()
    }

    @inlinable public var size: UInt16 { ring.size }
    public var base: UInt32 { PackedStanding(available: ring.nextAvailable, used: ring.nextUsed).base }

    /// The ring says only of the next request that it is there: of more it would have to be walked.
    @inlinable
    @inline(__always)
    public mutating func availableCount() -> UInt16? {
        if isBroken { return nil }
        return room > 0 && ring.hasAvailable ? room : 0
    }

    @inlinable
    @inline(__always)
    public func prefetchAvailable(_ count: UInt16) { ring.prefetchAvailable(count) }

    @inlinable
    @inline(__always)
    public mutating func take() -> UInt16? {
        guard room > 0, var descriptor = ring.available(at: ring.nextAvailable) else { return nil }
        var position = ring.nextAvailable
        var last = log.freeHead
        var next = log.copy(descriptor, to: last)
        var count: UInt16 = 1
        position.advance(by: 1, size: ring.size)
        while descriptor.hasNext {
            guard count < room, let following = ring.available(at: position) else {
                isBroken = true
                return nil
            }
            descriptor = following
            last = next
            next = log.copy(descriptor, to: last)
            count += 1
            position.advance(by: 1, size: ring.size)
        }
        ring.nextAvailable = position
        room -= count
        // The id is that of the last descriptor.
        log.close(last: last, count: count, id: descriptor.next)
        return log.freeHead
    }

    @inlinable
    @inline(__always)
    public mutating func record(_ slot: UInt16) { log.record(slot) }

    public func counter(of slot: UInt16) -> UInt64 { log.counter(of: slot) }

    public mutating func returnUnusable(_ slot: UInt16) {
        preconditionFailure("slot \(slot) was free: the log has chosen it")
    }

    @inlinable
    @inline(__always)
    public func walk(
        from slot: UInt16, memory: inout GuestMemoryView, into segments: inout SegmentList
    ) -> ChainVerdict {
        var walker = ChainWalker()
        let count = unsafe log.state(slot).pointee.count
        var index = slot
        for _ in 0..<Int(count) {
            let descriptor = log.descriptor(index)
            // A list has descriptors of one kind only (VIRTIO 1.2, 2.8.5).
            if descriptor.isIndirect {
                return walker.addPackedTable(
                    descriptor, isAlone: count == 1, isAllowed: ring.allowsIndirect, memory: &memory, to: &segments)
            }
            walker.add(descriptor, memory: &memory, to: &segments)
            index = unsafe log.state(index).pointee.next
        }
        return walker.verdict
    }

    @inlinable
    @inline(__always)
    public mutating func giveBack(_ slot: UInt16, written: UInt32) {
        precondition(batchCount < Int(size))
        unsafe (batch + batchCount).initialize(to: Returned(slot: slot, written: written))
        batchCount += 1
    }

    @inlinable
    public mutating func publish() -> Bool {
        guard batchCount > 0 else { return false }
        let start = ring.nextUsed
        var count: UInt16 = 0
        for index in 0..<batchCount {
            let slot = unsafe batch[index].slot
            count += unsafe log.state(slot).pointee.count
            log.release(slot)
        }
        var end = start
        end.advance(by: count, size: ring.size)
        log.willPublish(from: start, to: end)
        writeUsed(from: start)
        ring.nextUsed = end
        for index in 0..<batchCount { unsafe log.strikeOff(batch[index].slot) }
        log.didPublish(to: end)
        room += count
        batchCount = 0
        return ring.wantsInterrupt(for: count)
    }

    /// Writes the used descriptors of the batch. The driver looks at the first one first, which is marked last.
    @inlinable
    @inline(__always)
    mutating func writeUsed(from start: RingPosition) {
        var position = start
        for index in 0..<batchCount {
            let returned = unsafe batch[index]
            let known = unsafe log.state(returned.slot).pointee
            ring.writeUsed(at: position, id: known.id, written: returned.written)
            if index > 0 { ring.markUsed(at: position, hasLength: returned.written > 0) }
            position.advance(by: known.count, size: ring.size)
        }
        ring.markUsed(at: start, hasLength: unsafe batch[0].written > 0)
    }

    @inlinable
    public mutating func enableKicks() -> Bool { isBroken ? false : ring.enableKicks() && room > 0 }
    @inlinable
    public mutating func disableKicks() { ring.disableKicks() }
}
