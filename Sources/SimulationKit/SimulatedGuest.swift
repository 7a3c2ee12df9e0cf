internal import CWire
internal import Glibc
internal import Inflight
public import Platform
public import Virtio

/// A guest without a machine: memory, and the driver's side of one ring, in the same process as the device.
///
/// The driver does what it is told, legal or not: descriptors, ring entries and indices are written as given. What
/// comes back is checked: each used element must be of a head that was made available and has not been returned.
public final class SimulatedGuest {
    /// Where a region of memory lies.
    public struct Placement: Sendable {
        /// Guest physical address of the first byte.
        public var guestAddress: UInt64
        /// Bytes. The last one may be the last that there is, but no `MemoryGuard` watches such a region.
        public var size: Int
        /// Where it begins in its file, in bytes.
        public var fileOffset: Int

        public init(guestAddress: UInt64, size: Int, fileOffset: Int = 0) {
            self.guestAddress = guestAddress
            self.size = size
            self.fileOffset = fileOffset
        }
    }

    /// Guest memory as the device maps it.
    public let memory: GuestMemory
    public let ring: RingPlacement
    /// Index of the next entry of the available ring.
    public private(set) var availableIndex: UInt16
    /// Index of the next entry of the used ring to take.
    public private(set) var usedIndex: UInt16
    /// Requests made available that have not come back.
    public internal(set) var outstanding = 0
    /// What the driver knows of its ring, where that is a packed one; see `PackedSide`.
    var packed: PackedSide?
    /// The ring is a packed one.
    public var isPacked: Bool { packed != nil }

    /// How often each head is among them.
    private var inFlight: [UInt16: Int] = [:]

    let driverMemory: DriverMemory

    /// What is added to a guest address to get that of the front-end.
    public static let frontendShift: UInt64 = 0x0100_0000_0000

    /// - Parameters:
    ///   - placements: memory for buffers; they must not overlap. The ring gets a region of its own.
    ///   - queueSize: 1 to 32768.
    ///   - start: where both rings begin; of a packed one, how many descriptors into its two laps.
    ///   - isPacked: the ring is a packed one.
    /// - Throws: when there is not so much memory.
    public init(
        _ placements: [Placement], queueSize: Int, startingAt start: UInt16 = 0, isPacked: Bool = false
    ) throws(Errno) {
        let ring = RingPlacement(size: queueSize)
        let ringPlacement = Placement(guestAddress: RingPlacement.guestAddress, size: ring.byteCount)
        driverMemory = try DriverMemory(placements + [ringPlacement], frontendShift: Self.frontendShift)
        memory = try driverMemory.mapForDevice()
        self.ring = ring
        availableIndex = start
        usedIndex = start
        if isPacked {
            let side = PackedSide(size: queueSize, startingAt: start)
            packed = side
            preparePackedRing(side)
        } else {
            store16(start, at: ring.available + 2)
            store16(start, at: ring.used + 2)
        }
    }

    /// Where the ring lies, for a device.
    ///
    /// - Parameter features: the agreed feature bits.
    func areas(features: UInt64) -> RingAreas {
        let layout = RingLayout(size: ring.size, features: features)
        return unsafe RingAreas(
            size: UInt16(ring.size), features: features,
            descriptors: hostAddress(ring.descriptors, layout.descriptors.byteCount, layout.descriptors.alignment),
            driver: hostAddress(ring.available, layout.driver.byteCount, layout.driver.alignment),
            device: hostAddress(ring.used, layout.device.byteCount, layout.device.alignment))
    }

    /// Where a front-end says that the ring goes on (SET_VRING_BASE).
    var base: UInt32 {
        guard let packed else { return UInt32(availableIndex) }
        return UInt32(packed.nextAvailable.offWrap) | UInt32(packed.nextUsed.offWrap) << 16
    }

    private func hostAddress(_ address: UInt64, _ count: Int, _ alignment: UInt64) -> UnsafeMutableRawPointer {
        let frontendAddress = address &+ Self.frontendShift
        guard let host = unsafe memory.resolve(frontendAddress: frontendAddress, count: count, alignment: alignment)
        else { preconditionFailure("the ring is not in memory") }
        return unsafe host
    }

    /// The device's side of a split ring.
    ///
    /// - Parameters:
    ///   - features: the agreed feature bits.
    ///   - nextAvailable: where it goes on; nil for where the driver stands now.
    public func makeVirtqueue(features: UInt64, nextAvailable: UInt16? = nil) -> SplitVirtqueue {
        let areas = areas(features: features)
        return unsafe SplitVirtqueue(
            size: areas.size, features: features, descriptors: areas.descriptors, available: areas.driver,
            used: areas.device,
            nextAvailable: nextAvailable ?? availableIndex)
    }

    // MARK: Memory

    /// Copies bytes into guest memory; they may cross from one region into the next.
    public func write(_ bytes: [UInt8], at address: UInt64) { driverMemory.write(bytes, at: address) }

    /// Copies bytes out of guest memory; they may cross from one region into the next.
    public func read(_ count: Int, at address: UInt64) -> [UInt8] { driverMemory.read(count, at: address) }

    func store16(_ value: UInt16, at address: UInt64) { write(littleEndian(value), at: address) }

    func load16(at address: UInt64) -> UInt16 {
        let bytes = read(2, at: address)
        return UInt16(bytes[0]) | UInt16(bytes[1]) << 8
    }

    func load32(at address: UInt64) -> UInt32 {
        read(4, at: address).reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }

    // MARK: Descriptors

    /// Writes an entry of the descriptor table.
    public func setDescriptor(_ descriptor: Descriptor, at index: Int) {
        precondition(index >= 0 && index < ring.size, "no such descriptor")
        setTable([descriptor], at: ring.descriptors + UInt64(16 * index))
    }

    /// Writes descriptors anywhere: an indirect table, in the form that the ring's kind has. A packed one has `next` as
    /// id, of which nothing is made.
    public func setTable(_ table: [Descriptor], at address: UInt64) {
        var bytes: [UInt8] = []
        for descriptor in table {
            bytes += littleEndian(descriptor.address) + littleEndian(descriptor.length)
            let (flags, next) = (littleEndian(descriptor.flags), littleEndian(descriptor.next))
            bytes += isPacked ? next + flags : flags + next
        }
        write(bytes, at: address)
    }

    // MARK: The available ring

    /// Whether one more request fits into the ring.
    ///
    /// In a ring whose size is no power of two, places jump when the index wraps, and two entries could share one. Such
    /// a ring is run empty before index 0 is used again.
    public var hasRoom: Bool {
        if let packed { return packed.free > 0 && !packed.isSenseless }
        return outstanding < ring.size && (ring.size.nonzeroBitCount == 1 || availableIndex != 0 || outstanding == 0)
    }

    /// Descriptors that the next chain may have.
    public var freeDescriptors: Int { packed?.free ?? ring.size }

    /// Puts a head into the available ring and shows it to the device.
    public func makeAvailable(_ head: UInt16) {
        precondition(!isPacked, "a packed ring has no heads")
        store16(head, at: ring.available + 4 + UInt64(2 * (Int(availableIndex) % ring.size)))
        availableIndex &+= 1
        inFlight[head, default: 0] += 1
        outstanding += 1
        store16(availableIndex, at: ring.available + 2)
    }

    /// Claims to have made requests available up to an index, without any.
    public func claimAvailable(_ index: UInt16) { store16(index, at: ring.available + 2) }

    /// Asks for an interrupt when the device's index passes this one (`used_event`).
    public func setUsedEvent(_ index: UInt16) { store16(index, at: ring.available + 4 + UInt64(2 * ring.size)) }

    /// The flags of the available ring.
    public func setAvailableFlags(_ flags: UInt16) { store16(flags, at: ring.available) }

    /// The device asks for a kick when the driver's index passes this one (`avail_event`).
    public var availableEvent: UInt16 { load16(at: ring.used + 4 + UInt64(8 * ring.size)) }

    /// The flags of the used ring.
    public var usedFlags: UInt16 { load16(at: ring.used) }

    /// Whether a request with this head, or buffer id, is in flight.
    func isInFlight(_ head: UInt16) -> Bool { packed.map { $0.isInFlight(head) } ?? (inFlight[head] != nil) }

    // MARK: The used ring

    /// The index that the device shows.
    public var shownUsedIndex: UInt16 { load16(at: ring.used + 2) }

    /// Takes the next used element, or nil when there is none.
    ///
    /// - Throws: what no device may do.
    public func takeUsed() throws(GuestComplaint) -> UsedElement? {
        if let packed { return try takePackedUsed(packed) }
        let shown = shownUsedIndex
        guard shown != usedIndex else { return nil }
        guard Int(shown &- usedIndex) <= outstanding else {
            throw .returnedTooMany(Int(shown &- usedIndex), outstanding: outstanding)
        }
        let place = ring.used + 4 + UInt64(8 * (Int(usedIndex) % ring.size))
        let id = load32(at: place)
        let length = load32(at: place + 4)
        guard let head = UInt16(exactly: id), let count = inFlight[head] else { throw .notInFlight(id) }
        inFlight[head] = count > 1 ? count - 1 : nil
        outstanding -= 1
        usedIndex &+= 1
        return UsedElement(head: head, length: length)
    }
}

/// What a device returned (`virtq_used_elem`, or a used `pvirtq_desc`).
public struct UsedElement: Hashable, Sendable {
    /// The chain's head, or its buffer id in a packed ring.
    public var head: UInt16
    /// Bytes that the device says it wrote.
    public var length: UInt32

    public init(head: UInt16, length: UInt32) {
        self.head = head
        self.length = length
    }
}

/// What a device did that no device may do.
public enum GuestComplaint: Error, Equatable {
    case returnedTooMany(Int, outstanding: Int)
    case notInFlight(UInt32)
}

/// Where the parts of the ring lie: in a region of their own, from `guestAddress` on. A packed ring's event suppression
/// areas, driver's and device's, are where a split one has its available and its used ring.
public struct RingPlacement: Sendable {
    public static let guestAddress: UInt64 = 0x80_0000_0000
    public let size: Int
    public let descriptors: UInt64
    public let available: UInt64
    public let used: UInt64
    let byteCount: Int

    init(size: Int) {
        precondition((1...32768).contains(size), "a ring has 1 to 32768 descriptors")
        // With room for the event fields, whether they are agreed on or not.
        func aligned(_ address: UInt64) -> UInt64 { (address + 63) & ~63 }
        self.size = size
        descriptors = Self.guestAddress
        available = aligned(descriptors + UInt64(SplitVirtqueue.descriptorTableBytes(size: size)))
        used = aligned(available + UInt64(SplitVirtqueue.availableRingBytes(size: size, features: 1 << 29)))
        byteCount = Int(used - Self.guestAddress) + SplitVirtqueue.usedRingBytes(size: size, features: 1 << 29)
    }
}

func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}
