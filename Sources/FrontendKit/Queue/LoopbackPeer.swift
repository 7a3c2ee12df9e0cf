internal import CWire
internal import Synchronization
internal import Virtio

/// The device's side of a split ring, in this process: the least that a device can do.
///
/// It is the ideal peer that tells how fast the driver alone is, and the faulty peer that proves that the driver
/// notices. It trusts the driver, polls (it never asks for a kick) and checks nothing: it is no back-end.
@safe public struct LoopbackPeer: ~Copyable, @unchecked Sendable {
    public let endpoint: QueueEndpoint
    private let size: Int
    private let descriptors: UnsafePointer<wire_virtq_desc>
    private let available: UnsafeMutablePointer<Atomic<UInt16>>
    private let used: UnsafeMutablePointer<Atomic<UInt16>>
    private let usedElements: UnsafeMutablePointer<wire_virtq_used_elem>
    private let memoryBase: UnsafeMutableRawPointer
    private let memoryStart: UInt64
    private var nextAvailable: UInt16 = 0
    private var nextUsed: UInt16 = 0

    /// Serves a queue whose ring begins at index 0. `answerAll` needs all buffers in the first region of memory.
    public init(_ endpoint: QueueEndpoint) {
        let (memory, ring) = (endpoint.memory, endpoint.ring)
        self.endpoint = endpoint
        size = ring.size
        unsafe descriptors = UnsafePointer(
            memory.pointer(to: ring.descriptorTable, count: SplitRing.descriptorTableCount(size))
                .assumingMemoryBound(to: wire_virtq_desc.self))
        unsafe available = memory.pointer(to: ring.availableRing, count: SplitRing.availableRingCount(size))
            .assumingMemoryBound(to: Atomic<UInt16>.self)
        let usedBytes = unsafe memory.pointer(to: ring.usedRing, count: SplitRing.usedRingCount(size))
        unsafe used = usedBytes.assumingMemoryBound(to: Atomic<UInt16>.self)
        unsafe usedElements = (usedBytes + 4).assumingMemoryBound(to: wire_virtq_used_elem.self)
        memoryStart = memory.regions[0].description.guestAddress
        unsafe memoryBase = memory.regions[0].base
        unsafe used[0].store(UInt16(WIRE_VIRTQ_USED_F_NO_NOTIFY), ordering: .relaxed)
    }

    /// The head of the next available chain, or nil when there is none.
    public mutating func nextHead() -> UInt16? {
        let index = unsafe available[1].load(ordering: .acquiring)
        guard index != nextAvailable else { return nil }
        let head = unsafe available[2 + Int(nextAvailable) % size].load(ordering: .relaxed)
        nextAvailable &+= 1
        return head
    }

    /// The descriptors of a chain, an indirect table resolved.
    public borrowing func chain(at head: UInt16) -> [Descriptor] {
        let first = unsafe descriptors[Int(head)]
        guard first.flags & UInt16(WIRE_VIRTQ_DESC_F_INDIRECT) != 0 else {
            return unsafe chain(from: Int(head), in: descriptors)
        }
        let table = unsafe endpoint.memory.pointer(to: first.addr, count: Int(first.len))
        return unsafe chain(from: 0, in: UnsafePointer(table.assumingMemoryBound(to: wire_virtq_desc.self)))
    }

    private borrowing func chain(from head: Int, in table: UnsafePointer<wire_virtq_desc>) -> [Descriptor] {
        var chain: [Descriptor] = []
        var index = head
        while true {
            let wire = unsafe table[index]
            let flags = Descriptor.Flags(rawValue: wire.flags)
            chain.append(Descriptor(address: wire.addr, length: wire.len, flags: flags, next: wire.next))
            guard flags.contains(.next) else { return chain }
            index = Int(wire.next)
        }
    }

    /// Returns a chain; shown at once, without an interrupt.
    ///
    /// - Parameter id: what the used ring says, which a faulty device may choose freely.
    public mutating func complete(id: UInt32, length: UInt32) {
        unsafe usedElements[Int(nextUsed) % size] = wire_virtq_used_elem(id: id, len: length)
        nextUsed &+= 1
        unsafe used[1].store(nextUsed, ordering: .releasing)
    }

    /// Shows an index of the used ring that has nothing to do with what was returned.
    public mutating func writeUsedIndex(_ index: UInt16) {
        unsafe used[1].store(index, ordering: .releasing)
    }

    /// Answers every request that is available with "ok" and no data, as an ideal null device would.
    ///
    /// - Returns: how many there were.
    public mutating func answerAll() -> Int {
        let index = unsafe available[1].load(ordering: .acquiring)
        let count = Int(index &- nextAvailable)
        let mask = size - 1
        precondition(size & mask == 0, "the fast way wants a power of two")
        for _ in 0..<count {
            let head = unsafe available[2 + Int(nextAvailable) & mask].load(ordering: .relaxed)
            nextAvailable &+= 1
            var descriptor = unsafe descriptors[Int(head)]
            var table = unsafe descriptors
            if descriptor.flags & UInt16(WIRE_VIRTQ_DESC_F_INDIRECT) != 0 {
                unsafe table = UnsafePointer(
                    (memoryBase + Int(descriptor.addr &- memoryStart)).assumingMemoryBound(to: wire_virtq_desc.self))
                descriptor = unsafe table[0]
            }
            while descriptor.flags & UInt16(WIRE_VIRTQ_DESC_F_NEXT) != 0 {
                descriptor = unsafe table[Int(descriptor.next)]
            }
            unsafe (memoryBase + Int(descriptor.addr &- memoryStart)).storeBytes(of: 0, as: UInt8.self)
            unsafe usedElements[Int(nextUsed) & mask] = wire_virtq_used_elem(id: UInt32(head), len: 1)
            nextUsed &+= 1
        }
        unsafe used[1].store(nextUsed, ordering: .releasing)
        return count
    }
}
