internal import CWire
internal import Platform
internal import Synchronization

/// The driver's side of a virtqueue, split or packed as its endpoint says. Virtio 1.2, section 2.7. One thread owns it.
///
/// Invariants:
/// - what the device returns is checked: an id that is in flight, an index that is not ahead of what was made
///   available;
/// - an entry becomes visible by the release store of `publish` and never before; used entries are read after an
///   acquire load of `used.idx`, once each;
/// - `nextUsed + outstanding == published + staged`, modulo 2^16.
///
/// The raw level (`write(_:at:)`, `writeAvailableEntry`, `writeAvailableIndex`) bypasses all book-keeping: tests build
/// malformed rings with it, split ones. What is said here of indices is of split rings; packed ones are in
/// `PackedDriverRing`.
@safe public struct DriverQueue: ~Copyable, @unchecked Sendable {
    public let endpoint: QueueEndpoint
    /// Number of descriptors.
    public let size: Int
    /// Entries that were staged and have not come back.
    public var outstanding: Int {
        if let packed = unsafe packed { return unsafe packed.pointee.outstanding }
        return outstandingEntries
    }
    private var outstandingEntries = 0
    /// Drives the ring instead, where it is a packed one.
    private let packed: UnsafeMutablePointer<PackedDriverRing>?

    /// VIRTIO_F_EVENT_IDX was negotiated.
    private let usesEventIndex: Bool
    private let isPowerOfTwo: Bool

    private let descriptors: UnsafeMutablePointer<wire_virtq_desc>
    /// flags, idx, ring[size], used_event.
    private let available: UnsafeMutablePointer<Atomic<UInt16>>
    /// flags, idx of the used ring.
    private let used: UnsafeMutablePointer<Atomic<UInt16>>
    /// Pairs of id and len of the used ring.
    private let usedElements: UnsafeMutablePointer<Atomic<UInt32>>
    /// How often each head is in flight: once, unless a test says otherwise on purpose.
    private let inFlight: UnsafeMutablePointer<UInt16>

    /// Index after the last staged entry, and its place in the ring.
    private var nextAvailable: UInt16
    private var availablePosition: Int
    /// Index that the device sees.
    private var published: UInt16
    /// Index at the last decision about a kick.
    private var kickDecided: UInt16
    /// Index of the next used entry to take, and its place in the ring.
    private var nextUsed: UInt16
    private var usedPosition: Int
    /// `used.idx` as last read.
    private var seenUsed: UInt16

    /// Drives a queue; the ring is set to empty with both indices at `start`.
    ///
    /// - Parameter usesEventIndex: VIRTIO_F_EVENT_IDX will be negotiated.
    /// - Parameter start: where both rings begin. Nil: where the used ring is, 0 in fresh memory, so that a queue that
    ///   another driver has left with nothing in flight goes on. Any other needs a back-end that is told so
    /// (SET_VRING_BASE).
    public init(_ endpoint: QueueEndpoint, usesEventIndex: Bool, startingAt start: UInt16? = nil) {
        let index = endpoint.isPacked ? 0 : start ?? endpoint.usedIndex
        let ring = endpoint.ring
        let memory = endpoint.memory
        size = ring.size
        isPowerOfTwo = size & (size - 1) == 0
        self.usesEventIndex = usesEventIndex
        self.endpoint = endpoint
        unsafe descriptors = memory.pointer(to: ring.descriptorTable, count: SplitRing.descriptorTableCount(size))
            .assumingMemoryBound(to: wire_virtq_desc.self)
        unsafe available = memory.pointer(to: ring.availableRing, count: SplitRing.availableRingCount(size))
            .assumingMemoryBound(to: Atomic<UInt16>.self)
        let usedBytes = unsafe memory.pointer(to: ring.usedRing, count: SplitRing.usedRingCount(size))
        unsafe used = usedBytes.assumingMemoryBound(to: Atomic<UInt16>.self)
        unsafe usedElements = (usedBytes + 4).assumingMemoryBound(to: Atomic<UInt32>.self)
        unsafe inFlight = .allocate(capacity: size)
        unsafe inFlight.initialize(repeating: 0, count: size)
        nextAvailable = index
        availablePosition = Int(index) % size
        published = index
        kickDecided = index
        nextUsed = index
        usedPosition = Int(index) % size
        seenUsed = index
        guard !endpoint.isPacked else {
            let packed = UnsafeMutablePointer<PackedDriverRing>.allocate(capacity: 1)
            unsafe packed.initialize(to: PackedDriverRing(endpoint, usesEventIndex: usesEventIndex))
            unsafe self.packed = unsafe packed
            return
        }
        unsafe packed = nil
        unsafe used[1].store(index, ordering: .relaxed)
        unsafe available[1].store(index, ordering: .releasing)
        silenceInterrupts()
    }

    deinit {
        unsafe inFlight.deallocate()
        if let packed = unsafe packed {
            unsafe packed.deinitialize(count: 1)
            unsafe packed.deallocate()
        }
    }

    // MARK: Making requests available

    /// Whether one more entry may be staged.
    ///
    /// In a ring whose size is no power of two, the places jump when the 16-bit index wraps, and an entry could land on
    /// one that the device has not taken. Such a ring is run empty before index 0 is used again.
    public var hasRoom: Bool {
        if let packed = unsafe packed { return unsafe packed.pointee.hasRoom }
        return outstanding < size && (isPowerOfTwo || nextAvailable != 0 || outstanding == 0)
    }

    /// Writes one descriptor of the table.
    public mutating func write(_ descriptor: Descriptor, at index: Int) {
        precondition(index >= 0 && index < size, "no such descriptor")
        unsafe laidOut(at: index).pointee = descriptor.wire
    }

    /// Where the descriptors of chains are laid out, from `index` on: in the ring's table or, of a packed ring, in one
    /// of the driver's own.
    @unsafe func laidOut(at index: Int) -> UnsafeMutablePointer<wire_virtq_desc> {
        if let packed = unsafe packed { return unsafe packed.pointee.table + index }
        return unsafe descriptors + index
    }

    /// Puts the chain that begins at `head` into the available ring; the device does not see it yet.
    public mutating func stage(head: Int) {
        precondition(hasRoom, "the available ring is full")
        precondition(head >= 0 && head < size, "no such descriptor")
        if let packed = unsafe packed { return unsafe packed.pointee.stage(head: head) }
        unsafe available[2 + availablePosition].store(UInt16(head), ordering: .relaxed)
        unsafe inFlight[head] += 1
        outstandingEntries += 1
        nextAvailable &+= 1
        availablePosition = advanced(availablePosition, index: nextAvailable)
    }

    /// Shows the device everything that was staged.
    public mutating func publish() {
        if let packed = unsafe packed { return unsafe packed.pointee.publish() }
        published = nextAvailable
        unsafe available[1].store(published, ordering: .releasing)
    }

    /// Kicks the device, if it has asked to be told about what was published since the last decision.
    ///
    /// - Returns: whether it was kicked.
    @discardableResult
    public mutating func kick() -> Bool {
        if let packed = unsafe packed {
            let wanted = unsafe packed.pointee.wantsKick()
            if wanted { endpoint.kick.signal() }
            return wanted
        }
        guard published != kickDecided else { return false }
        // The index must be visible before the device's wish is read: else both sides may wait for each other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let wanted: Bool
        if usesEventIndex {
            // vring_need_event of section 2.7.10: has the index gone past avail_event since the last decision?
            let event = unsafe used[2 + 4 * size].load(ordering: .relaxed)
            wanted = published &- event &- 1 < published &- kickDecided
        } else {
            wanted = unsafe used[0].load(ordering: .relaxed) & UInt16(WIRE_VIRTQ_USED_F_NO_NOTIFY) == 0
        }
        kickDecided = published
        if wanted { endpoint.kick.signal() }
        return wanted
    }

    /// Writes one entry of the available ring, bypassing all book-keeping.
    public mutating func writeAvailableEntry(_ head: UInt16, at position: Int) {
        precondition(position >= 0 && position < size, "no such entry")
        unsafe available[2 + position].store(head, ordering: .relaxed)
    }

    /// Writes the index of the available ring, bypassing all book-keeping.
    public mutating func writeAvailableIndex(_ index: UInt16) {
        unsafe available[1].store(index, ordering: .releasing)
    }

    // MARK: Taking completions

    /// Takes the next used entry, or nil when there is none.
    ///
    /// - Throws: what the back-end did wrong; the queue is unusable then.
    public mutating func nextCompletion() throws(QueueViolation) -> UsedElement? {
        if let packed = unsafe packed { return unsafe try packed.pointee.nextCompletion() }
        if seenUsed == nextUsed {
            let index = unsafe used[1].load(ordering: .acquiring)
            guard index != nextUsed else { return nil }
            let count = Int(index &- nextUsed)
            let possible = outstanding - Int(nextAvailable &- published)
            guard count <= possible else { throw .usedIndexAhead(by: count, outstanding: possible) }
            seenUsed = index
        }
        let id = unsafe usedElements[2 * usedPosition].load(ordering: .relaxed)
        let length = unsafe usedElements[2 * usedPosition + 1].load(ordering: .relaxed)
        guard id < UInt32(size) else { throw .idOutOfRange(id, size: size) }
        guard unsafe inFlight[Int(id)] > 0 else { throw .idNotInFlight(id) }
        unsafe inFlight[Int(id)] -= 1
        outstandingEntries -= 1
        nextUsed &+= 1
        usedPosition = advanced(usedPosition, index: nextUsed)
        return UsedElement(head: Int(id), length: length)
    }

    /// Whether a used entry waits to be taken.
    public var hasCompletion: Bool {
        if let packed = unsafe packed { return unsafe packed.pointee.hasCompletion }
        let index = unsafe used[1].load(ordering: .acquiring)
        return index != nextUsed
    }

    // MARK: Interrupts

    /// Asks the device to interrupt for the next used entry.
    ///
    /// - Returns: false when an entry is there already, for which no interrupt may come.
    public mutating func requestInterrupt() -> Bool {
        if let packed = unsafe packed { return unsafe packed.pointee.requestInterrupt() }
        if usesEventIndex {
            writeUsedEvent(nextUsed)
        } else {
            unsafe available[0].store(0, ordering: .relaxed)
        }
        // The wish must be visible before the index is read again: else both sides may wait for each other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return !hasCompletion
    }

    /// Tells the device that the used ring is polled.
    public mutating func silenceInterrupts() {
        if let packed = unsafe packed { return unsafe packed.pointee.silenceInterrupts() }
        if usesEventIndex {
            // There is no "never": an index that has just gone by comes again after 2^16 entries.
            writeUsedEvent(nextUsed &- 1)
        } else {
            unsafe available[0].store(UInt16(WIRE_VIRTQ_AVAIL_F_NO_INTERRUPT), ordering: .relaxed)
        }
    }

    /// Waits for a used entry by interrupt.
    ///
    /// - Returns: false when the time was over first.
    public mutating func waitForCompletion(milliseconds: Int32) -> Bool {
        let deadline = monotonicNanoseconds() + UInt64(max(0, milliseconds)) * 1_000_000
        defer { silenceInterrupts() }
        while requestInterrupt() {
            let now = monotonicNanoseconds()
            guard now < deadline else { return false }
            let rest = Int32(clamping: (deadline - now + 999_999) / 1_000_000)
            if waitForInput(endpoint.call.fd.number, milliseconds: rest) { endpoint.call.clear() }
        }
        return true
    }

    private mutating func writeUsedEvent(_ index: UInt16) {
        unsafe available[2 + size].store(index, ordering: .relaxed)
    }

    /// The place after `position`, which is that of the running index `index`.
    private func advanced(_ position: Int, index: UInt16) -> Int {
        position + 1 == size || index == 0 ? 0 : position + 1
    }
}
