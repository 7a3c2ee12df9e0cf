import CWire
import FileTarget
import Glibc
import Inflight
import Platform
import Testing
import Virtio

/// The kernel's side of /dev/fuse, a message at a time, and the memory in custody.
@safe private final class KernelSide {
    private let kernel: OwnedFD
    private let device: OwnedFD
    let memory: UnsafeMutableRawPointer

    init() throws {
        var ends: [Int32] = [-1, -1]
        try #require(unsafe socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | O_NONBLOCK, 0, &ends) == 0)
        kernel = OwnedFD(owning: ends[0])
        device = OwnedFD(owning: ends[1])
        unsafe memory = .allocate(byteCount: FuseDeviceRing.byteCount, alignment: 4096)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: FuseDeviceRing.byteCount)
    }

    deinit { unsafe memory.deallocate() }

    /// A worker begins, after none or after one that died.
    func begin() throws -> (ring: OwnedRing, plan: RecoveryPlan) {
        var plan = RecoveryPlan()
        let size = UInt16(FuseDeviceRing.slotCount)
        let areas = unsafe RingAreas(size: size, features: 0, descriptors: memory, driver: memory, device: memory)
        let ring = try FuseDeviceRing(
            areas, base: UInt32(bitPattern: device.number), region: nil, queue: 0, plan: &plan)
        return (OwnedRing(ring), plan)
    }

    func ask(_ unique: UInt64) {
        var header = wire_fuse_in_header()
        (header.len, header.unique) = (UInt32(MemoryLayout<wire_fuse_in_header>.size), unique)
        #expect(unsafe send(kernel.number, &header, Int(header.len), 0) == Int(header.len))
    }

    /// The request that an answer is for; nil: there is no answer.
    func answered() -> UInt64? {
        var header = wire_fuse_out_header()
        guard unsafe recv(kernel.number, &header, MemoryLayout<wire_fuse_out_header>.size, 0) > 0 else { return nil }
        return header.unique
    }
}

/// A ring that a test holds on to.
private final class OwnedRing {
    private var ring: FuseDeviceRing
    /// The slots are no guest's memory.
    private let nowhere = GuestMemory([])

    init(_ ring: consuming FuseDeviceRing) { self.ring = ring }

    var free: Int { Int(ring.availableCount() ?? 0) }
    var slotToTake: UInt16? { ring.slotToTake }
    func take() -> UInt16? { ring.take() }
    func giveBack(_ slot: UInt16, written: UInt32) { ring.giveBack(slot, written: written) }
    func counter(of slot: UInt16) -> UInt64 { ring.counter(of: slot) }
    func enableKicks() -> Bool { ring.enableKicks() }

    /// Puts an answer without anything in it in place.
    ///
    /// - Returns: its length.
    func layOutAnswer(_ slot: UInt16) -> UInt32 {
        var header = wire_fuse_out_header()
        header.len = UInt32(MemoryLayout<wire_fuse_out_header>.size)
        header.unique = ring.counter(of: slot)
        unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { storage in
            var segments = unsafe SegmentList(storage: storage.baseAddress!, capacity: 2)
            var view = nowhere.view
            guard case .sound = ring.walk(from: slot, memory: &view, into: &segments) else {
                return #expect(Bool(false), "a request in a slot is sound")
            }
            unsafe storage[1].iov_base!.storeBytes(of: header, as: wire_fuse_out_header.self)
        }
        return header.len
    }
}

/// What a SIGKILL leaves behind in the memory of a mount's requests: the rows of the table at `FuseDeviceRing`.
@Suite("The ring of /dev/fuse: deaths")
struct FuseDeviceRingTests {
    private let side: KernelSide
    private let slots = FuseDeviceRing.slotCount

    init() throws { side = try KernelSide() }

    /// The length of an answer, as the ring keeps it before the slots.
    private func answerMark(_ slot: UInt16) -> UnsafeMutableRawPointer { unsafe side.memory + Int(slot) * 8 }

    @Test func `1: nothing has been read`() throws {
        let slot = try side.begin().ring.slotToTake
        #expect(slot != nil)
        let (next, plan) = try side.begin()
        #expect(next.free == slots && plan.heads.isEmpty && plan.struckOff == 0)
        #expect(next.take() == nil && next.free == slots)
    }

    @Test func `2: what has been read and not answered is found, as the kernel has numbered it`() throws {
        var slots: [UInt64: UInt16] = [:]
        let ring = try side.begin().ring
        // The one that was freed last is taken first: the order of slots is not that of requests.
        for unique: UInt64 in [2, 4, 6] {
            side.ask(unique)
            let slot = try #require(ring.take())
            slots[unique] = slot
        }
        for unique: UInt64 in [4, 2] {
            let count = ring.layOutAnswer(slots[unique]!)
            ring.giveBack(slots[unique]!, written: count)
            #expect(side.answered() == unique)
        }
        for unique: UInt64 in [8, 10] {
            side.ask(unique)
            let slot = try #require(ring.take())
            slots[unique] = slot
        }
        let (next, plan) = try side.begin()
        #expect(plan.heads == [6, 8, 10].map { slots[$0]! })
        #expect(plan.heads.map { next.counter(of: $0) } == [6, 8, 10])
        #expect(next.free == self.slots - 3)
    }

    @Test func `3 and 4: a complete answer is written, again if need be`() throws {
        side.ask(2)
        let ring = try side.begin().ring
        let slot = try #require(ring.take())
        let count = ring.layOutAnswer(slot)
        unsafe wire_store64(answerMark(slot), UInt64(count) + 1)
        let (next, plan) = try side.begin()
        #expect(side.answered() == 2)
        #expect(plan.heads.isEmpty && plan.struckOff == 1 && next.free == slots)
        #expect(try side.begin().plan == RecoveryPlan() && side.answered() == nil)
    }

    @Test func `a request that needs no answer gets none`() throws {
        side.ask(2)
        let ring = try side.begin().ring
        ring.giveBack(try #require(ring.take()), written: 0)
        #expect(side.answered() == nil && ring.free == slots)
        #expect(try side.begin().plan == RecoveryPlan())
    }

    @Test func `5: the answer to the request before is not that of the next`() throws {
        let ring = try side.begin().ring
        let slot = try #require(ring.slotToTake)
        unsafe wire_store64(answerMark(slot), 17)
        let next = try side.begin().ring
        side.ask(2)
        #expect(next.take() == slot)
        let (last, plan) = try side.begin()
        #expect(plan.heads == [slot] && plan.struckOff == 0 && side.answered() == nil)
        #expect(last.counter(of: slot) == 2)
    }

    @Test func `as many as there are slots`() throws {
        let ring = try side.begin().ring
        for number in 0..<slots {
            side.ask(UInt64(2 * number + 2))
            #expect(ring.take() != nil)
        }
        side.ask(2000)
        #expect(ring.free == 0 && ring.slotToTake == nil && ring.take() == nil)
        #expect(!ring.enableKicks(), "there is nothing to be done about more")
        #expect(try side.begin().plan.heads.count == slots)
    }

    @Test func `a memory of another size is refused`() throws {
        var plan = RecoveryPlan()
        let areas = unsafe RingAreas(
            size: 16, features: 0, descriptors: side.memory, driver: side.memory, device: side.memory)
        #expect(throws: InflightLogError.self) {
            _ = try FuseDeviceRing(areas, base: 0, region: nil, queue: 0, plan: &plan)
        }
    }
}
