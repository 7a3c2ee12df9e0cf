internal import CWire
public import Virtio

/// A place in a packed ring, and the wrap counter there (VIRTIO 1.2, 2.8.1), as a driver keeps it.
///
/// Written from the specification, not from the product: the two check each other.
struct PackedPlace {
    var index: Int
    var wrap: Bool

    mutating func advance(by count: Int, size: Int) {
        index += count
        if index >= size {
            index -= size
            wrap.toggle()
        }
    }

    /// Index and wrap counter as they stand in an event suppression area, or in SET_VRING_BASE.
    var offWrap: UInt16 { UInt16(index) | (wrap ? 0x8000 : 0) }

    /// The marks of a descriptor that is made available here.
    var availableMarks: UInt16 { UInt16(wrap ? WIRE_VIRTQ_DESC_F_AVAIL : WIRE_VIRTQ_DESC_F_USED) }

    /// Whether these flags say that a descriptor here was used in this lap.
    func isUsed(_ flags: UInt16) -> Bool {
        (flags & UInt16(WIRE_VIRTQ_DESC_F_AVAIL) != 0) == wrap && (flags & UInt16(WIRE_VIRTQ_DESC_F_USED) != 0) == wrap
    }
}

/// What the driver of a simulated guest knows of its packed ring.
struct PackedSide {
    let size: Int
    var nextAvailable: PackedPlace
    var nextUsed: PackedPlace
    /// Descriptors of no chain that is in flight.
    var free: Int
    /// The driver has put something into the ring that no request can follow.
    var isSenseless = false
    /// Chains in flight, by buffer id. Of several with one id, all are of one length: else the driver, who is told no
    /// more than the id, would not know how far to go on.
    private var inFlight: [UInt16: (chains: Int, length: Int)] = [:]

    /// - Parameter start: where the ring begins, as an index that counts on over both laps.
    init(size: Int, startingAt start: UInt16) {
        self.size = size
        free = size
        let lap = Int(start) % (2 * size)
        nextAvailable = PackedPlace(index: lap % size, wrap: lap < size)
        nextUsed = nextAvailable
    }

    /// The marks that stand at a place before the ring is used: of the descriptors behind the start, those of the lap
    /// before; of those in front of it, those of this one.
    func initialMarks(at index: Int) -> UInt16 {
        let wrap = index < nextAvailable.index ? nextAvailable.wrap : !nextAvailable.wrap
        return wrap ? UInt16(WIRE_VIRTQ_DESC_F_AVAIL) | UInt16(WIRE_VIRTQ_DESC_F_USED) : 0
    }

    /// Notes a chain, under the id that was wished for or, where that cannot be, the next that can.
    mutating func add(wishing id: UInt16, length: Int) -> UInt16 {
        var id = id
        while let others = inFlight[id], others.length != length { id &+= 1 }
        inFlight[id] = ((inFlight[id]?.chains ?? 0) + 1, length)
        free -= length
        return id
    }

    /// Whether a chain with this id is in flight.
    func isInFlight(_ id: UInt16) -> Bool { inFlight[id] != nil }

    /// Notes that a chain has come back.
    ///
    /// - Returns: false when no chain with this id is in flight.
    mutating func remove(_ id: UInt16) -> Bool {
        guard let (chains, length) = inFlight[id] else { return false }
        inFlight[id] = chains > 1 ? (chains - 1, length) : nil
        free += length
        nextUsed.advance(by: length, size: size)
        return true
    }
}

extension SimulatedGuest {
    /// Puts descriptors into a packed ring and shows them to the device. Where one has no NEXT, a chain ends, which the
    /// device takes for a request; if the last one has it, there is a chain without an end.
    ///
    /// - Parameters:
    ///   - descriptors: at most `freeDescriptors`. AVAIL and USED of their flags, and `next`, are set here.
    ///   - id: the buffer id that is wished for: see `PackedSide`.
    /// - Returns: the ids of the chains that have an end.
    @discardableResult
    public func makeAvailable(_ descriptors: [Descriptor], id: UInt16) -> [UInt16] {
        guard var side = packed else { preconditionFailure("the ring is a split one") }
        precondition(descriptors.count <= side.free, "\(descriptors.count) descriptors in place of \(side.free)")
        var ids: [UInt16] = []
        var chain: [Descriptor] = []
        for descriptor in descriptors {
            chain.append(descriptor)
            if descriptor.hasNext { continue }
            let id = side.add(wishing: id &+ UInt16(ids.count), length: chain.count)
            write(chain, id: id, &side.nextAvailable)
            ids.append(id)
            chain = []
        }
        write(chain, id: id, &side.nextAvailable)
        packed = side
        outstanding += ids.count
        return ids
    }

    /// Makes descriptors available that are no request, over whatever is in the ring: no request can follow.
    public func makeNonsenseAvailable(_ descriptors: [Descriptor], id: UInt16) {
        guard var place = packed?.nextAvailable else { preconditionFailure("the ring is a split one") }
        write(descriptors, id: id, &place)
        packed?.nextAvailable = place
        packed?.isSenseless = true
    }

    private func write(_ chain: [Descriptor], id: UInt16, _ place: inout PackedPlace) {
        for var descriptor in chain {
            descriptor.flags &= ~UInt16(WIRE_VIRTQ_DESC_F_AVAIL | WIRE_VIRTQ_DESC_F_USED)
            descriptor.flags |= place.availableMarks
            descriptor.next = id
            setTable([descriptor], at: ring.descriptors + UInt64(16 * place.index))
            place.advance(by: 1, size: ring.size)
        }
    }

    /// Writes the marks of a ring that nobody has used.
    func preparePackedRing(_ side: PackedSide) {
        for index in 0..<ring.size {
            store16(side.initialMarks(at: index), at: ring.descriptors + UInt64(16 * index + 14))
        }
    }

    /// Erases address and length of every descriptor in a packed ring. Ids and flags stay: the device goes by them.
    func erasePackedRing() {
        for index in 0..<ring.size {
            write([UInt8](repeating: 0, count: 12), at: ring.descriptors + UInt64(16 * index))
        }
    }

    /// Takes what a packed ring shows as used next.
    func takePackedUsed(_ side: PackedSide) throws(GuestComplaint) -> UsedElement? {
        let place = side.nextUsed
        let address = ring.descriptors + UInt64(16 * place.index)
        let flags = load16(at: address + 14)
        guard place.isUsed(flags) else { return nil }
        let id = load16(at: address + 12)
        guard packed?.remove(id) == true else { throw .notInFlight(UInt32(id)) }
        outstanding -= 1
        // Without WRITE nothing is said of a length (VIRTIO 1.2, 2.8.4).
        let length = flags & UInt16(WIRE_VIRTQ_DESC_F_WRITE) != 0 ? load32(at: address + 8) : 0
        return UsedElement(head: id, length: length)
    }
}
