internal import CWire
internal import Platform
internal import Synchronization
internal import Virtio

/// The driver's side of a packed virtqueue. Virtio 1.2, section 2.8. What `DriverQueue` drives where packed rings were
/// agreed on.
///
/// Chains are laid out beforehand in a table of the driver's own, in the form of a split ring's descriptor table: the
/// descriptors of the ring are written over with each lap. `stage` copies a chain from there into the ring; its id is
/// the index of its head. An indirect descriptor of that table leads to a table of the same form, with room for the
/// packed one, which the device is shown, right behind it.
@safe struct PackedDriverRing: ~Copyable {
    private let size: Int
    private let usesEventIndex: Bool
    private let memory: GuestMemory
    private let endpoint: QueueEndpoint
    /// The chains as they were laid out.
    let table: UnsafeMutablePointer<wire_virtq_desc>
    private let ring: UnsafeMutablePointer<wire_pvirtq_desc>
    private let driverEvents: UnsafeMutablePointer<Atomic<UInt32>>
    private let deviceEvents: UnsafeMutablePointer<Atomic<UInt32>>
    /// Descriptors that each id has in the ring, and how often it is in flight.
    private let flights: UnsafeMutablePointer<Flight>

    private struct Flight {
        var count: UInt16 = 0
        var descriptors: UInt16 = 0
    }

    /// Where the next chain is put.
    private var nextAvailable: RingPosition
    /// Where the next used descriptor is looked for.
    private var nextUsed: RingPosition
    /// The head of the first chain that was staged and is not shown, and its flags.
    private var withheld: (position: RingPosition, flags: UInt16)?
    private var freeDescriptors: Int
    /// Descriptors published since the last decision about a kick, and staged since the last publication.
    private var undecided: UInt16 = 0
    private var unpublished: UInt16 = 0
    private(set) var outstanding = 0

    init(_ endpoint: QueueEndpoint, usesEventIndex: Bool) {
        let (memory, ring) = (endpoint.memory, endpoint.ring)
        size = ring.size
        self.usesEventIndex = usesEventIndex
        self.memory = memory
        self.endpoint = endpoint
        unsafe table = .allocate(capacity: ring.size)
        unsafe table.initialize(repeating: wire_virtq_desc(), count: ring.size)
        unsafe self.ring = memory.pointer(to: ring.descriptorTable, count: 16 * ring.size)
            .assumingMemoryBound(to: wire_pvirtq_desc.self)
        unsafe driverEvents = memory.pointer(to: ring.availableRing, count: 4)
            .assumingMemoryBound(to: Atomic<UInt32>.self)
        unsafe deviceEvents = memory.pointer(to: ring.usedRing, count: 4)
            .assumingMemoryBound(to: Atomic<UInt32>.self)
        unsafe flights = .allocate(capacity: ring.size)
        unsafe flights.initialize(repeating: Flight(), count: ring.size)
        let base = endpoint.packedBase
        nextAvailable = RingPosition(rawValue: UInt16(truncatingIfNeeded: base))
        nextUsed = RingPosition(rawValue: UInt16(truncatingIfNeeded: base >> 16))
        freeDescriptors = ring.size
        silenceInterrupts()
    }

    deinit {
        // Another driver goes on here, if nothing is in flight.
        endpoint.packedBase = UInt32(nextAvailable.rawValue) | UInt32(nextUsed.rawValue) << 16
        unsafe table.deallocate()
        unsafe flights.deallocate()
    }

    // MARK: Making requests available

    var hasRoom: Bool { freeDescriptors > 0 }

    mutating func stage(head: Int) {
        let first = unsafe table[head]
        if first.flags & UInt16(WIRE_VIRTQ_DESC_F_INDIRECT) != 0 {
            let count = packTable(at: first.addr, room: Int(first.len))
            put(first.addr + UInt64(first.len), UInt32(16 * count), first.flags, id: head, isHead: true)
            return finishChain(head, count: 1)
        }
        var count = 1
        var descriptor = first
        while true {
            put(descriptor.addr, descriptor.len, descriptor.flags, id: head, isHead: count == 1)
            if descriptor.flags & UInt16(WIRE_VIRTQ_DESC_F_NEXT) == 0 { break }
            descriptor = unsafe table[Int(descriptor.next)]
            count += 1
            precondition(count <= freeDescriptors, "the ring is full")
        }
        finishChain(head, count: count)
    }

    /// Writes a packed table behind the one that was laid out.
    ///
    /// - Returns: how many descriptors it has.
    private func packTable(at address: UInt64, room: Int) -> Int {
        let source = unsafe memory.pointer(to: address, count: 2 * room)
        let laidOut = unsafe source.assumingMemoryBound(to: wire_virtq_desc.self)
        let packed = unsafe (source + room).assumingMemoryBound(to: wire_pvirtq_desc.self)
        var index = 0
        for count in 0..<room / 16 {
            let descriptor = unsafe laidOut[index]
            let flags = descriptor.flags & UInt16(WIRE_VIRTQ_DESC_F_WRITE)
            unsafe packed[count] = wire_pvirtq_desc(addr: descriptor.addr, len: descriptor.len, id: 0, flags: flags)
            if descriptor.flags & UInt16(WIRE_VIRTQ_DESC_F_NEXT) == 0 { return count + 1 }
            index = Int(descriptor.next)
        }
        preconditionFailure("the table has no end")
    }

    /// Writes a descriptor at the next place. The device sees it, unless it is the first one since `publish`.
    private mutating func put(_ address: UInt64, _ length: UInt32, _ flags: UInt16, id: Int, isHead: Bool) {
        let place = unsafe ring + Int(nextAvailable.index)
        unsafe place.pointee.addr = address
        unsafe place.pointee.len = length
        unsafe place.pointee.id = UInt16(id)
        let mark = nextAvailable.wrap ? WIRE_VIRTQ_DESC_F_AVAIL : WIRE_VIRTQ_DESC_F_USED
        if isHead, withheld == nil {
            withheld = (nextAvailable, flags | UInt16(mark))
        } else {
            unsafe place.pointee.flags = flags | UInt16(mark)
        }
        nextAvailable.advance(by: 1, size: UInt16(size))
    }

    private mutating func finishChain(_ head: Int, count: Int) {
        precondition(count <= freeDescriptors, "the ring is full")
        freeDescriptors -= count
        let flight = unsafe flights + head
        unsafe flight.pointee.count += 1
        unsafe flight.pointee.descriptors = UInt16(count)
        outstanding += 1
        unpublished += UInt16(count)
    }

    mutating func publish() {
        guard let head = withheld.take() else { return }
        unsafe flags(head.position).pointee.store(head.flags, ordering: .releasing)
        undecided += unpublished
        unpublished = 0
    }

    mutating func wantsKick() -> Bool {
        guard undecided > 0 else { return false }
        defer { undecided = 0 }
        // The flags must be visible before the device's wish is read: else both sides may wait for each other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let event = unsafe deviceEvents.pointee.load(ordering: .relaxed)
        switch Int(event >> 16 & 3) {
        case WIRE_RING_EVENT_FLAGS_DISABLE: return false
        case WIRE_RING_EVENT_FLAGS_DESC where usesEventIndex: break
        default: return true
        }
        let wanted = RingPosition(rawValue: UInt16(truncatingIfNeeded: event))
        let place = wanted.wrap == nextAvailable.wrap ? wanted.index : wanted.index &- UInt16(size)
        return nextAvailable.index &- place &- 1 < undecided
    }

    // MARK: Taking completions

    mutating func nextCompletion() throws(QueueViolation) -> UsedElement? {
        guard hasCompletion else { return nil }
        let (id, length) = unsafe (ring[Int(nextUsed.index)].id, ring[Int(nextUsed.index)].len)
        guard Int(id) < size else { throw .idOutOfRange(UInt32(id), size: size) }
        let flight = unsafe flights + Int(id)
        guard unsafe flight.pointee.count > 0 else { throw .idNotInFlight(UInt32(id)) }
        unsafe flight.pointee.count -= 1
        let count = unsafe flight.pointee.descriptors
        outstanding -= 1
        freeDescriptors += Int(count)
        nextUsed.advance(by: count, size: UInt16(size))
        return UsedElement(head: Int(id), length: length)
    }

    var hasCompletion: Bool {
        let marks = unsafe flags(nextUsed).pointee.load(ordering: .acquiring)
        let both = UInt16(WIRE_VIRTQ_DESC_F_AVAIL) | UInt16(WIRE_VIRTQ_DESC_F_USED)
        return marks & both == (nextUsed.wrap ? both : 0)
    }

    private func flags(_ position: RingPosition) -> UnsafeMutablePointer<Atomic<UInt16>> {
        let place = unsafe UnsafeMutableRawPointer(ring + Int(position.index)) + 14
        return unsafe place.assumingMemoryBound(to: Atomic<UInt16>.self)
    }

    // MARK: Interrupts

    mutating func requestInterrupt() -> Bool {
        let flags = usesEventIndex ? WIRE_RING_EVENT_FLAGS_DESC : WIRE_RING_EVENT_FLAGS_ENABLE
        unsafe driverEvents.pointee.store(UInt32(nextUsed.rawValue) | UInt32(flags) << 16, ordering: .relaxed)
        // The wish must be visible before the ring is read again: else both sides may wait for each other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return !hasCompletion
    }

    func silenceInterrupts() {
        unsafe driverEvents.pointee.store(UInt32(WIRE_RING_EVENT_FLAGS_DISABLE) << 16, ordering: .relaxed)
    }
}
