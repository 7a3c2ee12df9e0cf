internal import CWire
public import Virtio

/// Where a packed ring goes on.
public struct PackedStanding: Hashable, Sendable {
    /// The first descriptor not yet taken.
    public var available: RingPosition
    /// Where the next used descriptor is shown.
    public var used: RingPosition
    /// Descriptors of requests that were taken and not returned.
    public var inFlight = 0

    public init(available: RingPosition, used: RingPosition) {
        self.available = available
        self.used = used
    }

    /// As SET_VRING_BASE says it.
    public init(base: UInt32) {
        available = RingPosition(rawValue: UInt16(truncatingIfNeeded: base))
        used = RingPosition(rawValue: UInt16(truncatingIfNeeded: base >> 16))
    }

    /// As GET_VRING_BASE is answered.
    public var base: UInt32 { UInt32(available.rawValue) | UInt32(used.rawValue) << 16 }
}

/// What a log says, read once and checked.
private struct PackedLogContents {
    /// The free list, from its head.
    var freeHead: UInt16
    /// Up to where the ring has been published.
    var used: RingPosition
    /// Where the interrupted publication would have led; nil: none was, or it has happened.
    var undone: RingPosition?
    /// Entries in the free list that still say they are in flight.
    var published: [UInt16] = []
    var chains: [(counter: UInt64, head: UInt16)] = []
    var states: [PackedInflightLog.EntryState]
    var descriptorsInFlight = 0
}

extension PackedInflightLog {
    /// Reads what the worker before has left, and makes it and the ring consistent. Doing it twice, or dying within it,
    /// changes nothing.
    ///
    /// **Order of stores**: `inflight = 0` of what was published; or, where a publication is undone, the marks of its
    /// used descriptors in the ring, which no driver has looked at, are taken back: the next publication may lead
    /// through the same places in another order. Then `free_head` and `old_free_head`, then the `used` positions.
    ///
    /// - Parameters:
    ///   - standing: where the front-end says that the ring stands; where it goes on, on return.
    ///   - descriptors: the descriptor ring.
    /// - Throws: when the log contradicts itself or the front-end names a place outside the ring; neither log nor ring
    ///   has been touched then.
    public mutating func recover(
        _ standing: inout PackedStanding, descriptors: UnsafeMutableRawPointer
    ) throws(InflightLogError) -> RecoveryPlan {
        var plan = RecoveryPlan()
        let version = unsafe wire_load16(base + 8)
        guard version <= UInt16(WIRE_INFLIGHT_VERSION) else { throw .version(version) }
        guard version != 0 else {
            guard standing.available.index < size, standing.used.index < size else { throw .outsideRing(standing) }
            initialise(used: standing.used)
            plan.isFresh = true
            return plan
        }
        let contents = unsafe try read(descriptors: descriptors)
        unsafe apply(contents, descriptors: descriptors)
        plan.struckOff = contents.published.count
        plan.heads = contents.chains.map(\.head)
        // Overflow would need an attacker who writes the log: the front-end, which then loses the order of its own
        // requests.
        counter = max(1, (contents.chains.last?.counter ?? 0) &+ 1)
        standing = PackedStanding(available: contents.used, used: contents.used)
        standing.available.advance(by: UInt16(contents.descriptorsInFlight), size: size)
        standing.inFlight = contents.descriptorsInFlight
        return plan
    }

    /// Reads and checks everything; changes nothing.
    private func read(descriptors: UnsafeMutableRawPointer) throws(InflightLogError) -> PackedLogContents {
        let heads = unsafe wire_load64(base + 8)
        let positions = unsafe wire_load64(base + 16)
        let count = UInt16(truncatingIfNeeded: heads >> 16)
        guard count == size else { throw .otherRing(Int(count), size: Int(size)) }
        let used = RingPosition(index: UInt16(truncatingIfNeeded: positions), wrap: positions >> 32 & 0xff != 0)
        let old = RingPosition(index: UInt16(truncatingIfNeeded: positions >> 16), wrap: positions >> 40 & 0xff != 0)
        let standing = PackedStanding(available: used, used: old)
        guard used.index < size, old.index < size else { throw .outsideRing(standing) }
        let isMarked = unsafe PackedVirtqueue.isUsed(at: old, descriptors: descriptors, size: size)
        let isPublished = used == old || isMarked
        // Equal positions: nothing was under way but links of requests that would have been published next.
        let freeHead = UInt16(truncatingIfNeeded: heads >> (isPublished && used != old ? 32 : 48))
        var contents = PackedLogContents(
            freeHead: freeHead, used: isPublished ? used : old,
            states: [EntryState](repeating: EntryState(), count: Int(size)))
        if !isPublished { contents.undone = used }
        var isTaken = [Bool](repeating: false, count: Int(size))
        var index = freeHead
        while index < size {
            guard !isTaken[Int(index)] else { throw .brokenList(index) }
            isTaken[Int(index)] = true
            if unsafe wire_load8(entry(index)) != 0 { contents.published.append(index) }
            let next = unsafe wire_load16(entry(index) + 2)
            contents.states[Int(index)].next = next
            index = next
        }
        for head in 0..<size where !isTaken[Int(head)] {
            if unsafe wire_load8(entry(head)) != 0 { try readChain(head, &contents, &isTaken) }
        }
        if let lost = isTaken.firstIndex(of: false) { throw .brokenList(UInt16(lost)) }
        contents.chains.sort { $0.counter < $1.counter }
        return contents
    }

    /// Reads the entries of one request in flight.
    private func readChain(
        _ head: UInt16, _ contents: inout PackedLogContents, _ isTaken: inout [Bool]
    ) throws(InflightLogError) {
        let count = unsafe wire_load16(entry(head) + 6)
        guard count >= 1, count <= size else { throw .brokenList(head) }
        var index = head
        for place in 1...count {
            guard index < size, !isTaken[Int(index)] else { throw .brokenList(index) }
            isTaken[Int(index)] = true
            if place == count { break }
            let next = unsafe wire_load16(entry(index) + 2)
            contents.states[Int(index)].next = next
            index = next
        }
        contents.states[Int(head)].last = index
        contents.states[Int(head)].count = count
        contents.states[Int(head)].id = unsafe wire_load16(entry(index) + 16)
        contents.chains.append((unsafe wire_load64(entry(head) + 8), head))
        contents.descriptorsInFlight += Int(count)
    }

    private mutating func apply(_ contents: PackedLogContents, descriptors: UnsafeMutableRawPointer) {
        for index in 0..<Int(size) { unsafe states[index] = contents.states[index] }
        freeHead = contents.freeHead
        for index in contents.published { unsafe wire_store8(entry(index), 0) }
        if let end = contents.undone {
            var position = contents.used
            // At least one, at most a whole lap.
            for _ in 0..<size {
                if unsafe PackedVirtqueue.isUsed(at: position, descriptors: descriptors, size: size) {
                    unsafe PackedVirtqueue.unmarkUsed(at: position, descriptors: descriptors, size: size)
                }
                position.advance(by: 1, size: size)
                if position == end { break }
            }
        }
        storeFreeHeads()
        didPublish(to: contents.used)
    }

    /// A region that nobody has used: the ring may have been used before, by a worker that kept no log.
    private mutating func initialise(used: RingPosition) {
        for index in 0..<size {
            for word in 0..<4 { unsafe wire_store64(entry(index) + 8 * word, 0) }
            unsafe wire_store16(entry(index) + 2, index + 1)
            unsafe states[Int(index)] = EntryState()
            unsafe states[Int(index)].next = index + 1
        }
        freeHead = 0
        counter = 1
        unsafe wire_store64(base, 0)
        unsafe wire_store16(base + 10, size)
        unsafe wire_store64(base + 24, 0)
        storeFreeHeads()
        didPublish(to: used)
        unsafe wire_store16(base + 8, UInt16(WIRE_INFLIGHT_VERSION))
    }
}
