internal import CWire
internal import Virtio

/// The driver's side of a ring, as a value: what the driver knows outlives no worker, but can be kept and gone back to
/// with the memory that it belongs to.
///
/// Written from the specification, not from the product: the two check each other.
protocol DriverRing {
    /// Number of descriptors.
    var size: Int { get }
    /// Where the areas lie, in bytes from the start of guest memory: descriptors, driver's, device's.
    var areas: (descriptors: Int, driver: Int, device: Int) { get }
    /// Where a back-end is told that the ring goes on (SET_VRING_BASE): where nothing has been returned yet.
    func base(_ memory: OutlivingMemory) -> UInt32

    /// Makes a chain available. Its descriptors' `next` and NEXT are set here.
    ///
    /// - Parameter id: the head's index in a split ring, the buffer id in a packed one. It and the chain's length in
    ///   numbers behind it belong to this request alone until it comes back.
    mutating func makeAvailable(_ chain: [Descriptor], id: UInt16, _ memory: OutlivingMemory)

    /// Makes available what is no chain, by its id alone.
    ///
    /// - Returns: false when this kind of ring has no such thing.
    mutating func makeNonsenseAvailable(id: UInt16, _ memory: OutlivingMemory) -> Bool

    /// Whether the device wants a kick for what was made available since this was asked last.
    mutating func wantsKick(_ memory: OutlivingMemory) -> Bool

    /// Takes what the device returned next, or nil.
    mutating func takeUsed(_ memory: OutlivingMemory) -> UsedElement?

    /// The ids of what the device shows as returned and `takeUsed` has not taken.
    func shown(_ memory: OutlivingMemory) -> [UInt16]

    /// Asks for an interrupt at the next return.
    func askForInterrupt(_ memory: OutlivingMemory)
}

/// VIRTIO 1.2, 2.7.
struct SplitDriverRing: DriverRing {
    let size: Int
    let areas: (descriptors: Int, driver: Int, device: Int)
    private let usesEventIndex: Bool
    private var availableIndex: UInt16
    private var usedIndex: UInt16
    private var askedIndex: UInt16

    /// - Parameter start: the index at which both rings begin.
    init(size: Int, usesEventIndex: Bool, start: UInt16, _ memory: OutlivingMemory) {
        precondition(size.nonzeroBitCount == 1, "the rings of the simulation are powers of two")
        self.size = size
        self.usesEventIndex = usesEventIndex
        let available = 16 * size
        areas = (0, available, (available + 6 + 2 * size + 3) & ~3)
        availableIndex = start
        usedIndex = start
        askedIndex = start
        memory.store16(start, areas.driver + 2)
        memory.store16(start, areas.device + 2)
        askForInterrupt(memory)
    }

    func base(_ memory: OutlivingMemory) -> UInt32 { UInt32(memory.load16(areas.device + 2)) }

    mutating func makeAvailable(_ chain: [Descriptor], id: UInt16, _ memory: OutlivingMemory) {
        for (index, descriptor) in chain.enumerated() {
            memory.store(linked(descriptor, index, chain.count, Int(id) + index + 1), 16 * (Int(id) + index))
        }
        _ = makeNonsenseAvailable(id: id, memory)
    }

    mutating func makeNonsenseAvailable(id: UInt16, _ memory: OutlivingMemory) -> Bool {
        memory.store16(id, areas.driver + 4 + 2 * (Int(availableIndex) % size))
        availableIndex &+= 1
        memory.store16(availableIndex, areas.driver + 2)
        return true
    }

    mutating func wantsKick(_ memory: OutlivingMemory) -> Bool {
        let old = askedIndex
        askedIndex = availableIndex
        guard old != availableIndex else { return false }
        if usesEventIndex {
            let event = memory.load16(areas.device + 4 + 8 * size)
            return availableIndex &- event &- 1 < availableIndex &- old
        }
        return memory.load16(areas.device) & UInt16(WIRE_VIRTQ_USED_F_NO_NOTIFY) == 0
    }

    mutating func takeUsed(_ memory: OutlivingMemory) -> UsedElement? {
        guard memory.load16(areas.device + 2) != usedIndex else { return nil }
        let element = element(usedIndex, memory)
        usedIndex &+= 1
        return element
    }

    func shown(_ memory: OutlivingMemory) -> [UInt16] {
        let count = memory.load16(areas.device + 2) &- usedIndex
        return (0..<min(count, UInt16(size))).map { element(usedIndex &+ $0, memory).head }
    }

    private func element(_ index: UInt16, _ memory: OutlivingMemory) -> UsedElement {
        let offset = areas.device + 4 + 8 * (Int(index) % size)
        // An id beyond 16 bits belongs to nobody, as does 65535.
        return UsedElement(head: UInt16(clamping: memory.load32(offset)), length: memory.load32(offset + 4))
    }

    func askForInterrupt(_ memory: OutlivingMemory) {
        if usesEventIndex { memory.store16(usedIndex, areas.driver + 4 + 2 * size) }
    }
}

/// A descriptor at its place in a chain.
func linked(_ descriptor: Descriptor, _ index: Int, _ count: Int, _ next: Int) -> Descriptor {
    guard index + 1 < count else { return descriptor }
    var descriptor = descriptor
    descriptor.flags |= UInt16(WIRE_VIRTQ_DESC_F_NEXT)
    descriptor.next = UInt16(next)
    return descriptor
}
