internal import CWire
internal import Virtio

/// VIRTIO 1.2, 2.8: one ring in which the device overwrites what the driver has written.
struct PackedDriverRing: DriverRing {
    private static let available = UInt16(WIRE_VIRTQ_DESC_F_AVAIL)
    private static let used = UInt16(WIRE_VIRTQ_DESC_F_USED)

    let size: Int
    let areas: (descriptors: Int, driver: Int, device: Int)
    private let usesEventIndex: Bool
    private let start: PackedPlace
    private var nextAvailable: PackedPlace
    private var nextUsed: PackedPlace
    /// Descriptors made available since a kick was last thought of.
    private var added = 0
    /// How many descriptors a chain has, by its id.
    private var lengths: [UInt16: Int] = [:]

    /// The ring begins close to its end, so that it wraps soon.
    init(size: Int, usesEventIndex: Bool, _ memory: OutlivingMemory) {
        self.size = size
        self.usesEventIndex = usesEventIndex
        areas = (0, 16 * size, 16 * size + 4)
        start = PackedPlace(index: size - 2, wrap: true)
        nextAvailable = start
        nextUsed = start
        // What was used before the start, in the same lap.
        for index in 0..<start.index { memory.store16(Self.available | Self.used, 16 * index + 14) }
        askForInterrupt(memory)
    }

    /// Both positions (vhost-user: VHOST_USER_SET_VRING_BASE). Where nothing has been returned, they have not moved.
    func base(_ memory: OutlivingMemory) -> UInt32 { UInt32(start.offWrap) | UInt32(start.offWrap) << 16 }

    mutating func makeAvailable(_ chain: [Descriptor], id: UInt16, _ memory: OutlivingMemory) {
        let first = nextAvailable
        for (index, descriptor) in chain.enumerated() {
            let offset = 16 * nextAvailable.index
            memory.store64(descriptor.address, offset)
            memory.store32(descriptor.length, offset + 8)
            memory.store16(id, offset + 12)
            // The first one shows them all: last.
            if index > 0 { memory.store16(flags(descriptor, index, chain.count, nextAvailable), offset + 14) }
            nextAvailable.advance(by: 1, size: size)
        }
        memory.store16(flags(chain[0], 0, chain.count, first), 16 * first.index + 14)
        lengths[id] = chain.count
        added += chain.count
    }

    private func flags(_ descriptor: Descriptor, _ index: Int, _ count: Int, _ place: PackedPlace) -> UInt16 {
        descriptor.flags | place.availableMarks | (index + 1 < count ? UInt16(WIRE_VIRTQ_DESC_F_NEXT) : 0)
    }

    func makeNonsenseAvailable(id: UInt16, _ memory: OutlivingMemory) -> Bool { false }

    mutating func wantsKick(_ memory: OutlivingMemory) -> Bool {
        let new = UInt16(nextAvailable.index)
        let old = new &- UInt16(added)
        guard added > 0 else { return false }
        added = 0
        switch Int(memory.load16(areas.device + 2)) {
        case WIRE_RING_EVENT_FLAGS_DISABLE: return false
        case WIRE_RING_EVENT_FLAGS_DESC:
            let offWrap = memory.load16(areas.device)
            var event = offWrap & 0x7fff
            if (offWrap & 0x8000 != 0) != nextAvailable.wrap { event &-= UInt16(size) }
            return new &- event &- 1 < new &- old
        default: return true
        }
    }

    mutating func takeUsed(_ memory: OutlivingMemory) -> UsedElement? {
        guard let element = element(at: nextUsed, memory) else { return nil }
        // Of an id that it does not know, the driver cannot go on; the guest will say so.
        nextUsed.advance(by: lengths.removeValue(forKey: element.head) ?? 1, size: size)
        return element
    }

    func shown(_ memory: OutlivingMemory) -> [UInt16] {
        var ids: [UInt16] = []
        var place = nextUsed
        while ids.count < size, let element = element(at: place, memory) {
            ids.append(element.head)
            place.advance(by: lengths[element.head] ?? 1, size: size)
        }
        return ids
    }

    private func element(at place: PackedPlace, _ memory: OutlivingMemory) -> UsedElement? {
        let offset = 16 * place.index
        let flags = memory.load16(offset + 14)
        guard place.isUsed(flags) else { return nil }
        let hasLength = flags & UInt16(WIRE_VIRTQ_DESC_F_WRITE) != 0
        return UsedElement(head: memory.load16(offset + 12), length: hasLength ? memory.load32(offset + 8) : 0)
    }

    func askForInterrupt(_ memory: OutlivingMemory) {
        let flags = usesEventIndex ? WIRE_RING_EVENT_FLAGS_DESC : WIRE_RING_EVENT_FLAGS_ENABLE
        memory.store16(nextUsed.offWrap, areas.driver)
        memory.store16(UInt16(flags), areas.driver + 2)
    }
}
