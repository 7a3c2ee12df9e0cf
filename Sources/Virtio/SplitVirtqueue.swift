public import CWire
public import Synchronization

/// The device's side of a split virtqueue (VIRTIO 1.2, section 2.7).
///
/// Invariants:
/// - `nextAvailable` is the index of the first available ring entry not yet taken; `usedIndex` counts the entries
///   written to the used ring, published or not; `publishedIndex` is what the used ring's idx says. All are modulo
/// 2^16.
/// - No more than `size` entries are taken between two publications, whatever the guest writes.
/// - The three areas were checked to lie in one region each and stay mapped while this value lives.
/// - One thread owns it.
@safe public struct SplitVirtqueue: ~Copyable {
    /// Number of descriptors, 1 to 32768.
    public let size: UInt16
    /// Whether EVENT_IDX was agreed on: fine-grained suppression of kicks and interrupts.
    public let usesEventIndex: Bool
    /// Whether INDIRECT_DESC was agreed on.
    public let allowsIndirect: Bool

    @usableFromInline let descriptors: UnsafeMutableRawPointer
    @usableFromInline let available: UnsafeMutableRawPointer
    @usableFromInline let used: UnsafeMutableRawPointer
    /// `size - 1` for a power of two, else 0.
    @usableFromInline let mask: UInt16

    /// Index of the next available ring entry to take.
    @inlinable public var nextAvailable: UInt16 { nextAvailableValue }
    @usableFromInline var nextAvailableValue: UInt16
    /// Index behind the last used element written.
    @usableFromInline var usedIndex: UInt16
    /// Index that the guest has been shown.
    @usableFromInline var publishedIndexValue: UInt16
    /// The available index as last observed: saves touching the guest's cache line for every request.
    @usableFromInline var observedAvailable: UInt16

    /// Bytes of the descriptor table.
    public static func descriptorTableBytes(size: Int) -> Int { 16 * size }
    /// Bytes of the available ring; used_event is behind it only if EVENT_IDX was agreed on.
    public static func availableRingBytes(size: Int, features: UInt64) -> Int {
        (usesEventIndex(features) ? 6 : 4) + 2 * size
    }
    /// Bytes of the used ring; avail_event is behind it only if EVENT_IDX was agreed on.
    public static func usedRingBytes(size: Int, features: UInt64) -> Int {
        (usesEventIndex(features) ? 6 : 4) + 8 * size
    }

    private static func usesEventIndex(_ features: UInt64) -> Bool {
        features & (1 << UInt64(WIRE_VIRTIO_RING_F_EVENT_IDX)) != 0
    }

    /// Takes up a ring where it stands.
    ///
    /// - Parameters:
    ///   - descriptors: the descriptor table, aligned to 16 (to 8 is tolerated).
    ///   - available: the available ring, aligned to 2.
    ///   - used: the used ring, aligned to 4.
    ///   - features: the agreed feature bits.
    ///   - nextAvailable: the index of the next entry to take.
    public init(
        size: UInt16, features: UInt64, descriptors: UnsafeMutableRawPointer, available: UnsafeMutableRawPointer,
        used: UnsafeMutableRawPointer, nextAvailable: UInt16
    ) {
        precondition(size >= 1 && size <= 32768)
        self.size = size
        mask = size & (size &- 1) == 0 ? size - 1 : 0
        usesEventIndex = Self.usesEventIndex(features)
        allowsIndirect = features & (1 << UInt64(WIRE_VIRTIO_RING_F_INDIRECT_DESC)) != 0
        unsafe self.descriptors = unsafe descriptors
        unsafe self.available = unsafe available
        unsafe self.used = unsafe used
        nextAvailableValue = nextAvailable
        observedAvailable = nextAvailable
        usedIndex = unsafe wire_load16(used + 2)
        publishedIndexValue = usedIndex
    }

    @inlinable
    func position(_ index: UInt16) -> Int {
        Int(mask != 0 ? index & mask : index % size)
    }

    @inlinable
    static func atomic16(_ address: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt16>> {
        unsafe address.assumingMemoryBound(to: Atomic<UInt16>.self)
    }

    /// What the used ring's idx shows the guest.
    @inlinable public var publishedIndex: UInt16 { publishedIndexValue }

    /// What a used ring's idx shows, before anything is taken up.
    public static func usedIndex(at used: UnsafeMutableRawPointer) -> UInt16 {
        unsafe atomic16(used + 2).pointee.load(ordering: .acquiring)
    }

    /// How many requests wait in the available ring.
    ///
    /// - Returns: nil when the guest's index makes no sense: it claims more than the ring can hold.
    @inlinable
    public mutating func availableCount() -> UInt16? {
        if observedAvailable == nextAvailable {
            observedAvailable = unsafe Self.atomic16(available + 2).pointee.load(ordering: .acquiring)
        }
        let count = observedAvailable &- nextAvailable
        return count <= size ? count : nil
    }

    /// Takes the next entry of the available ring; there must be one (`availableCount`).
    ///
    /// - Returns: the head of the chain as the guest wrote it: any number, to be compared with `size`.
    @inlinable
    public mutating func takeAvailable() -> UInt16 {
        let head = unsafe wire_load16(available + 4 + 2 * position(nextAvailable))
        nextAvailableValue &+= 1
        return head
    }

    /// Fetches what the next `count` entries will need, so that their cache misses overlap.
    @inlinable
    public func prefetchAvailable(_ count: UInt16) {
        // Int: of any other type, an iterator that is not optimised allocates.
        for ahead in 0..<Int(count) {
            let index = nextAvailable &+ UInt16(truncatingIfNeeded: ahead)
            let head = unsafe wire_load16(available + 4 + 2 * position(index))
            guard head < size else { continue }
            // Three descriptors in a row, the usual chain, lie in two cache lines as often as in one.
            unsafe wire_prefetch(descriptors + 16 * Int(head))
            unsafe wire_prefetch(descriptors + 16 * Int(head) + 47)
        }
    }

    /// Copies a descriptor out of the table.
    @inlinable
    public func descriptor(_ index: UInt16) -> Descriptor {
        precondition(index < size)
        return unsafe Descriptor(at: descriptors + 16 * Int(index))
    }

    /// Writes a used element. The guest sees it at the next `publish`.
    ///
    /// - Parameters:
    ///   - head: the chain's head, as it came.
    ///   - written: bytes written to the chain's device-writable part.
    @inlinable
    public mutating func writeUsed(head: UInt16, written: UInt32) {
        let element = UInt64(head) | UInt64(written) << 32
        unsafe wire_store64(used + 4 + 8 * position(usedIndex), element)
        usedIndex &+= 1
    }

    /// Shows the guest the used elements written so far.
    ///
    /// - Returns: whether the guest asks for an interrupt for them.
    @inlinable
    public mutating func publish() -> Bool {
        let old = publishedIndexValue
        guard old != usedIndex else { return false }
        publishedIndexValue = usedIndex
        unsafe Self.atomic16(used + 2).pointee.store(usedIndex, ordering: .releasing)
        // The driver stores used_event (or its flag), then looks at idx; we store idx, then look. Without a full fence
        // both could miss the other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if usesEventIndex {
            let event = unsafe wire_load16(available + 4 + 2 * Int(size))
            return usedIndex &- event &- 1 < usedIndex &- old
        }
        return unsafe wire_load16(available) & UInt16(WIRE_VIRTQ_AVAIL_F_NO_INTERRUPT) == 0
    }

    /// Asks the guest to kick when it makes the next request available.
    ///
    /// - Returns: true when one has been made available meanwhile, for which no kick may come.
    public mutating func enableKicks() -> Bool {
        if usesEventIndex {
            unsafe wire_store16(used + 4 + 8 * Int(size), nextAvailable)
        } else {
            unsafe wire_store16(used, 0)
        }
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        observedAvailable = nextAvailable
        return availableCount() != 0
    }

    /// Tells the guest that kicks are not needed for now. With EVENT_IDX there is nothing to say: the event index stays
    /// behind, and the guest kicks only when it crosses it.
    public func disableKicks() {
        if !usesEventIndex { unsafe wire_store16(used, UInt16(WIRE_VIRTQ_USED_F_NO_NOTIFY)) }
    }
}

/// A descriptor, copied out of guest memory (`virtq_desc`).
public struct Descriptor: Sendable {
    /// Guest physical address.
    public var address: UInt64
    /// Length in bytes.
    public var length: UInt32
    public var flags: UInt16
    /// Index of the next descriptor, if `hasNext`.
    public var next: UInt16

    @inlinable
    public init(address: UInt64, length: UInt32, flags: UInt16, next: UInt16) {
        self.address = address
        self.length = length
        self.flags = flags
        self.next = next
    }

    /// Reads 16 bytes, once.
    @inlinable
    init(at pointer: UnsafeRawPointer) {
        let rest = unsafe wire_load64(pointer + 8)
        unsafe address = wire_load64(pointer)
        length = UInt32(truncatingIfNeeded: rest)
        flags = UInt16(truncatingIfNeeded: rest >> 32)
        next = UInt16(truncatingIfNeeded: rest >> 48)
    }

    /// VIRTQ_DESC_F_NEXT
    @inlinable public var hasNext: Bool { flags & UInt16(WIRE_VIRTQ_DESC_F_NEXT) != 0 }
    /// VIRTQ_DESC_F_WRITE: the device writes, else it reads.
    @inlinable public var isWritable: Bool { flags & UInt16(WIRE_VIRTQ_DESC_F_WRITE) != 0 }
    /// VIRTQ_DESC_F_INDIRECT
    @inlinable public var isIndirect: Bool { flags & UInt16(WIRE_VIRTQ_DESC_F_INDIRECT) != 0 }
}
