public import CWire
public import Synchronization

/// A place in a packed ring and the wrap counter there (VIRTIO 1.2, 2.8.1): 1 in the first lap, and the other value
/// each time that the ring begins again.
public struct RingPosition: Hashable, Sendable {
    /// Index of a descriptor, below the ring's size.
    public var index: UInt16
    public var wrap: Bool

    @inlinable
    public init(index: UInt16, wrap: Bool) {
        self.index = index
        self.wrap = wrap
    }

    /// From 16 bits of the wire: the index in bits 0 to 14, the wrap counter in bit 15.
    @inlinable
    public init(rawValue: UInt16) {
        self.init(index: rawValue & 0x7fff, wrap: rawValue & 0x8000 != 0)
    }

    /// In 16 bits of the wire.
    @inlinable public var rawValue: UInt16 { index | (wrap ? 0x8000 : 0) }

    /// Goes on by `count` descriptors, at most `size`, which may be 2^15.
    @inlinable
    public mutating func advance(by count: UInt16, size: UInt16) {
        // At most 2^15 - 1 + 2^15: it fits.
        index += count
        if index >= size {
            index -= size
            wrap.toggle()
        }
    }

    /// The flags of a descriptor here that is available: AVAIL is as the wrap counter, USED is not.
    @inlinable var availableFlags: UInt16 {
        wrap ? UInt16(WIRE_VIRTQ_DESC_F_AVAIL) : UInt16(WIRE_VIRTQ_DESC_F_USED)
    }
    /// The flags of a descriptor here that is used: both are as the wrap counter.
    @inlinable var usedFlags: UInt16 {
        wrap ? UInt16(WIRE_VIRTQ_DESC_F_AVAIL) | UInt16(WIRE_VIRTQ_DESC_F_USED) : 0
    }
}

/// The device's side of a packed virtqueue (VIRTIO 1.2, section 2.8): the ring alone. What is taken from it and not yet
/// returned is kept by `PackedRequestRing`.
///
/// Invariants:
/// - `nextAvailable` is the first descriptor not yet taken, `nextUsed` where the next used descriptor is shown.
/// - The three areas were checked to lie in one region each and stay mapped while this value lives.
/// - One thread owns it.
@safe public struct PackedVirtqueue: ~Copyable {
    /// Number of descriptors, 1 to 32768.
    public let size: UInt16
    /// Whether EVENT_IDX was agreed on: fine-grained suppression of kicks and interrupts.
    public let usesEventIndex: Bool
    /// Whether INDIRECT_DESC was agreed on.
    public let allowsIndirect: Bool

    @usableFromInline let descriptors: UnsafeMutableRawPointer
    @usableFromInline let driverEvents: UnsafeMutableRawPointer
    @usableFromInline let deviceEvents: UnsafeMutableRawPointer

    /// The first descriptor not yet taken.
    public var nextAvailable: RingPosition
    /// Where the next used descriptor is shown.
    public var nextUsed: RingPosition

    /// Bytes of the descriptor ring.
    public static func descriptorRingBytes(size: Int) -> Int { 16 * size }
    /// Bytes of the driver's and of the device's event suppression area each.
    public static var eventSuppressionBytes: Int { 4 }

    /// Takes up a ring where it stands.
    ///
    /// - Parameters:
    ///   - descriptors: the descriptor ring, aligned to 16 (to 8 is tolerated).
    ///   - driverEvents: the driver's event suppression, aligned to 4.
    ///   - deviceEvents: the device's event suppression, aligned to 4.
    ///   - features: the agreed feature bits.
    public init(
        size: UInt16, features: UInt64, descriptors: UnsafeMutableRawPointer, driverEvents: UnsafeMutableRawPointer,
        deviceEvents: UnsafeMutableRawPointer, nextAvailable: RingPosition, nextUsed: RingPosition
    ) {
        precondition(size >= 1 && size <= 32768 && nextAvailable.index < size && nextUsed.index < size)
        self.size = size
        usesEventIndex = features & (1 << UInt64(WIRE_VIRTIO_RING_F_EVENT_IDX)) != 0
        allowsIndirect = features & (1 << UInt64(WIRE_VIRTIO_RING_F_INDIRECT_DESC)) != 0
        unsafe self.descriptors = unsafe descriptors
        unsafe self.driverEvents = unsafe driverEvents
        unsafe self.deviceEvents = unsafe deviceEvents
        self.nextAvailable = nextAvailable
        self.nextUsed = nextUsed
    }

    // MARK: Taking

    /// Copies the descriptor at a position out of the ring: its second half first, in which its flags are, so that what
    /// the driver stored before them is seen.
    ///
    /// - Returns: nil when it is not available there.
    @inlinable
    @inline(__always)
    public func available(at position: RingPosition) -> Descriptor? {
        precondition(position.index < size)
        let place = unsafe descriptors + 16 * Int(position.index)
        let rest = unsafe (place + 8).assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .acquiring)
        let marks = UInt16(WIRE_VIRTQ_DESC_F_AVAIL) | UInt16(WIRE_VIRTQ_DESC_F_USED)
        guard UInt16(truncatingIfNeeded: rest >> 48) & marks == position.availableFlags else { return nil }
        return unsafe Descriptor(packedAddress: wire_load64(place), rest: rest)
    }

    /// Whether the driver has made the next descriptor available.
    @inlinable
    @inline(__always)
    public var hasAvailable: Bool { available(at: nextAvailable) != nil }

    /// Fetches the descriptors `count` from `nextAvailable` on.
    @inlinable
    public func prefetchAvailable(_ count: UInt16) {
        unsafe wire_prefetch(descriptors + 16 * Int(nextAvailable.index))
        unsafe wire_prefetch(descriptors + 16 * Int(nextAvailable.index) + 64)
    }

    // MARK: Returning

    /// Writes identity and length of a used descriptor. The driver sees it when its flags are marked.
    @inlinable
    @inline(__always)
    public mutating func writeUsed(at position: RingPosition, id: UInt16, written: UInt32) {
        precondition(position.index < size)
        let place = unsafe descriptors + 16 * Int(position.index)
        unsafe wire_store32(place + 8, written)
        unsafe wire_store16(place + 12, id)
    }

    /// Marks a descriptor as used: the driver may look at it now, if it is the next one for it to look at.
    ///
    /// - Parameter hasLength: its length says what was written (VIRTQ_DESC_F_WRITE).
    @inlinable
    @inline(__always)
    public mutating func markUsed(at position: RingPosition, hasLength: Bool) {
        let flags = position.usedFlags | (hasLength ? UInt16(WIRE_VIRTQ_DESC_F_WRITE) : 0)
        unsafe Self.flags(descriptors, position.index, size).pointee.store(flags, ordering: .releasing)
    }

    /// Whether the descriptor at a position has been marked as used in this lap, or has even been made available in the
    /// next one since. A driver marks every descriptor of a chain as available, so USED says it alone.
    public static func isUsed(
        at position: RingPosition, descriptors: UnsafeMutableRawPointer, size: UInt16
    ) -> Bool {
        let flags = unsafe flags(descriptors, position.index, size).pointee.load(ordering: .acquiring)
        return (flags & UInt16(WIRE_VIRTQ_DESC_F_USED) != 0) == position.wrap
    }

    /// Takes a mark back that no driver has looked at: the descriptor is available again, as it was in this lap.
    public static func unmarkUsed(
        at position: RingPosition, descriptors: UnsafeMutableRawPointer, size: UInt16
    ) {
        unsafe flags(descriptors, position.index, size).pointee.store(position.availableFlags, ordering: .releasing)
    }

    @inlinable
    static func flags(
        _ descriptors: UnsafeMutableRawPointer, _ index: UInt16, _ size: UInt16
    ) -> UnsafeMutablePointer<Atomic<UInt16>> {
        precondition(index < size)
        return unsafe (descriptors + (16 * Int(index) + 14)).assumingMemoryBound(to: Atomic<UInt16>.self)
    }

    // MARK: Notifications

    /// Whether the driver asks for an interrupt for the `count` descriptors up to `nextUsed`, which it has been shown.
    @inlinable
    public func wantsInterrupt(for count: UInt16) -> Bool {
        // The driver stores its wish, then looks at the ring; we store the used flags, then look. Without a full fence
        // both could miss the other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let event = unsafe wire_load32(driverEvents)
        switch Int(UInt16(truncatingIfNeeded: event >> 16) & 3) {
        case WIRE_RING_EVENT_FLAGS_DISABLE: return false
        case WIRE_RING_EVENT_FLAGS_DESC where usesEventIndex: break
        default: return true
        }
        let wanted = RingPosition(rawValue: UInt16(truncatingIfNeeded: event))
        // Positions of the lap before are negative, modulo 2^16.
        let place = wanted.wrap == nextUsed.wrap ? wanted.index : wanted.index &- size
        return nextUsed.index &- place &- 1 < count
    }

    /// Asks the guest to kick when it makes the next descriptor available.
    ///
    /// - Returns: true when it has been made available meanwhile, for which no kick may come.
    public mutating func enableKicks() -> Bool {
        let flags = usesEventIndex ? WIRE_RING_EVENT_FLAGS_DESC : WIRE_RING_EVENT_FLAGS_ENABLE
        unsafe wire_store32(deviceEvents, UInt32(nextAvailable.rawValue) | UInt32(flags) << 16)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return hasAvailable
    }

    /// Tells the guest that kicks are not needed for now.
    public mutating func disableKicks() {
        unsafe wire_store16(deviceEvents + 2, UInt16(WIRE_RING_EVENT_FLAGS_DISABLE))
    }
}

extension Descriptor {
    /// From the two halves of a packed descriptor (`pvirtq_desc`): `next` is its id.
    @inlinable
    init(packedAddress address: UInt64, rest: UInt64) {
        self.init(
            address: address, length: UInt32(truncatingIfNeeded: rest),
            flags: UInt16(truncatingIfNeeded: rest >> 48), next: UInt16(truncatingIfNeeded: rest >> 32))
    }
}

extension ChainWalker {
    /// Collects the buffers of a packed ring's indirect table, which is a whole chain (VIRTIO 1.2, 2.8.7): as many
    /// descriptors as its length says, whatever their NEXT flag.
    ///
    /// - Parameters:
    ///   - reference: the descriptor that names the table.
    ///   - isAlone: it is the only descriptor of its chain; another may not be.
    ///   - isAllowed: INDIRECT_DESC was agreed on.
    public mutating func addPackedTable(
        _ reference: Descriptor, isAlone: Bool, isAllowed: Bool, memory: inout GuestMemoryView,
        to segments: inout SegmentList
    ) -> ChainVerdict {
        guard isAllowed else { return .endless(.indirectNotAgreed) }
        let count = Int(reference.length / 16)
        guard isAlone, reference.length % 16 == 0, count >= 1, count <= maximumChainLength,
            !reference.address.addingReportingOverflow(UInt64(reference.length) - 1).overflow,
            let table = memory.translate(reference.address)
        else { return .endless(.badIndirectTable) }
        let whole = table.count >= UInt64(reference.length)
        for index in 0..<count {
            let current: Descriptor
            if whole {
                let place = unsafe table.host + 16 * index
                current = unsafe Descriptor(packedAddress: wire_load64(place), rest: wire_load64(place + 8))
            } else {
                // The table crosses regions: slow, rare, legal.
                var copy: (UInt64, UInt64) = (0, 0)
                guard unsafe memory.copyOut(reference.address + UInt64(16 * index), to: &copy, count: 16) else {
                    return .endless(.badIndirectTable)
                }
                current = Descriptor(packedAddress: copy.0, rest: copy.1)
            }
            if current.isIndirect { return .endless(.nestedIndirect) }
            add(current, memory: &memory, to: &segments)
        }
        return verdict
    }
}
