import CWire
import Inflight
import Platform
import Testing
import Virtio

/// Rings and logs as other front-ends and back-ends leave them, set up byte by byte: states in which targets in wide
/// use lose a request, complete one twice, or stall.
@Suite struct FoundStateTests {
    static let size = 8

    /// A ring and a log in memory, and what a successor makes of them.
    final class Remains {
        let ring: Mapping
        let log: Mapping
        let region: InflightRegion
        let driver = 16 * FoundStateTests.size
        let device = 16 * FoundStateTests.size + 64
        let features: UInt64

        init(isPacked: Bool) throws {
            let count = 64 + 32 * FoundStateTests.size
            let file = try makeMemoryFile(name: "log", count: count)
            ring = try Mapping(anonymous: 4096)
            log = try Mapping(sharing: file, count: count)
            region = try InflightRegion(
                fd: file, offset: 0, count: UInt64(count), queueCount: 1, queueSize: FoundStateTests.size)
            features = isPacked ? 1 << 34 | 1 << 32 : 1 << 32
        }

        /// - Parameter base: as SET_VRING_BASE says.
        func successor<Ring: RequestRing & ~Copyable>(_: Ring.Type, base: UInt32) throws -> Successor<Ring> {
            var plan = RecoveryPlan()
            let areas = unsafe RingAreas(
                size: UInt16(FoundStateTests.size), features: features, descriptors: ring.base,
                driver: ring.base + driver, device: ring.base + device)
            return Successor(try Ring(areas, base: base, region: region, queue: 0, plan: &plan), plan)
        }

        // Split: what the guest has made available and what it has got back, by index.
        func makeAvailable(_ heads: [UInt16], from index: UInt16) {
            for (offset, head) in heads.enumerated() {
                let place = (Int(index) + offset) % FoundStateTests.size
                unsafe wire_store16(ring.base + driver + 4 + 2 * place, head)
            }
            unsafe wire_store16(ring.base + driver + 2, index &+ UInt16(heads.count))
        }
        var usedIndex: UInt16 {
            get { unsafe wire_load16(ring.base + device + 2) }
            set { unsafe wire_store16(ring.base + device + 2, newValue) }
        }
        func isInFlight(_ head: Int) -> Bool { unsafe wire_load8(log.base + 16 + 16 * head) != 0 }

        // Packed.
        func makeAvailable(id: UInt16, at index: Int) {
            unsafe wire_store16(ring.base + 16 * index + 12, id)
            unsafe wire_store16(ring.base + 16 * index + 14, UInt16(WIRE_VIRTQ_DESC_F_AVAIL))
        }
        func load64(_ offset: Int) -> UInt64 { unsafe wire_load64(log.base + offset) }
        func store64(_ value: UInt64, _ offset: Int) { unsafe wire_store64(log.base + offset, value) }
        func store16(_ value: UInt16, _ offset: Int) { unsafe wire_store16(log.base + offset, value) }
        func store8(_ value: UInt8, _ offset: Int) { unsafe wire_store8(log.base + offset, value) }
        /// id and whether it is marked as used in the first lap.
        func returned(_ index: Int) -> UInt16? {
            let marks = UInt16(WIRE_VIRTQ_DESC_F_AVAIL | WIRE_VIRTQ_DESC_F_USED)
            let flags = unsafe wire_load16(ring.base + 16 * index + 14)
            return unsafe flags & marks == marks ? wire_load16(ring.base + 16 * index + 12) : nil
        }
    }

    final class Successor<Ring: RequestRing & ~Copyable> {
        var ring: Ring
        let plan: RecoveryPlan

        init(_ ring: consuming Ring, _ plan: RecoveryPlan) {
            self.ring = ring
            self.plan = plan
        }

        /// Takes all that waits.
        func takeAll() -> [UInt16] {
            var slots: [UInt16] = []
            while let count = ring.availableCount(), count > 0, let slot = ring.take() {
                ring.record(slot)
                slots.append(slot)
            }
            return slots
        }
        func giveBack(_ slots: [UInt16]) {
            for slot in slots { ring.giveBack(slot, written: 1) }
            _ = ring.publish()
        }
    }

    // MARK: Split

    @Test
    func
        `a fresh log on a running ring: each request outstanding comes back once, none is struck off for another`()
        throws
    {
        let remains = try Remains(isPacked: false)
        remains.usedIndex = 100
        remains.makeAvailable([0, 5], from: 100)
        let worker = try remains.successor(SplitRequestRing.self, base: 100)
        #expect(worker.plan.isFresh && worker.plan.heads.isEmpty)
        #expect(worker.takeAll() == [0, 5])
        worker.giveBack([5])
        #expect(remains.usedIndex == 101)
        #expect(remains.isInFlight(0) && !remains.isInFlight(5))
        let next = try remains.successor(SplitRequestRing.self, base: 101)
        #expect(next.plan.heads == [0])
        #expect(next.takeAll().isEmpty)
        next.giveBack([0])
        #expect(remains.usedIndex == 102)
    }

    @Test(arguments: [100, 101, 103] as [UInt16])
    func `a log that was used knows better than SET_VRING_BASE`(base: UInt16) throws {
        let remains = try Remains(isPacked: false)
        remains.usedIndex = 100
        remains.makeAvailable([0, 1, 2], from: 100)
        let worker = try remains.successor(SplitRequestRing.self, base: 100)
        #expect(worker.takeAll() == [0, 1, 2])
        worker.giveBack([1])
        remains.makeAvailable([0, 1, 2, 1], from: 100)
        // QEMU says the used index, cloud-hypervisor the available one.
        let next = try remains.successor(SplitRequestRing.self, base: UInt32(base))
        #expect(next.plan.heads == [0, 2])
        #expect(next.ring.base == 103)
        #expect(next.takeAll() == [1])
    }

    @Test func `a log made by the front-end's own hand, with version and size, counts as one that was used`() throws {
        let remains = try Remains(isPacked: false)
        remains.store16(UInt16(FoundStateTests.size), 10)
        remains.store16(1, 8)
        remains.makeAvailable([3], from: 0)
        let worker = try remains.successor(SplitRequestRing.self, base: 0)
        #expect(!worker.plan.isFresh && worker.plan.heads.isEmpty && worker.plan.struckOff == 0)
        #expect(worker.takeAll() == [3])
    }

    @Test func `the counter of a request is never 0, which others take for a log that was not used`() throws {
        let remains = try Remains(isPacked: false)
        remains.makeAvailable([4], from: 0)
        let worker = try remains.successor(SplitRequestRing.self, base: 0)
        #expect(worker.takeAll() == [4])
        #expect(remains.load64(16 + 16 * 4 + 8) == 1)
    }

    @Test(arguments: [false, true])
    func `a log with fewer entries than the ring is refused and not written to`(isPacked: Bool) throws {
        let file = try makeMemoryFile(name: "log", count: 4096)
        let bytes = try Mapping(sharing: file, count: 4096)
        unsafe bytes.base.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
        let region = try InflightRegion(fd: file, offset: 0, count: 320, queueCount: 1, queueSize: 4)
        let ring = try Mapping(anonymous: 4096)
        let areas = unsafe RingAreas(
            size: 64, features: 1 << 32, descriptors: ring.base, driver: ring.base + 1024, device: ring.base + 2048)
        var plan = RecoveryPlan()
        #expect(throws: InflightLogError.self) {
            if isPacked {
                _ = try PackedRequestRing(areas, base: 0x8000_8000, region: region, queue: 0, plan: &plan)
            } else {
                _ = try SplitRequestRing(areas, base: 0, region: region, queue: 0, plan: &plan)
            }
        }
        let isUntouched = (0..<4096).allSatisfy { unsafe wire_load8(bytes.base + $0) == 0 }
        #expect(isUntouched)
    }

    // MARK: Packed

    /// Three requests were taken; the second was returned, and death came right behind the mark in the ring. Entries 1
    /// to 3 in the log, of which number 2 was linked into the free list.
    private func publishedPacked() throws -> Remains {
        let remains = try Remains(isPacked: true)
        for index in 0..<3 { remains.makeAvailable(id: UInt16(10 + index), at: index) }
        let worker = try remains.successor(PackedRequestRing.self, base: 0x8000_8000)
        #expect(worker.takeAll() == [0, 1, 2])
        let (heads, positions) = (remains.load64(8), remains.load64(16))
        worker.giveBack([1])
        #expect(remains.returned(0) == 11)
        // Back to before the stores behind the publication: in flight, and the old fields old.
        remains.store8(1, 32 + 32)
        remains.store16(UInt16(truncatingIfNeeded: heads >> 48), 14)
        remains.store16(UInt16(truncatingIfNeeded: positions >> 16), 18)
        remains.store8(UInt8(truncatingIfNeeded: positions >> 40), 21)
        return remains
    }

    private func expectContinuation(_ remains: Remains) throws {
        for _ in 0..<2 {
            let next = try remains.successor(PackedRequestRing.self, base: 0)
            // Not the one that was returned.
            #expect(next.plan.heads == [0, 2])
        }
        let next = try remains.successor(PackedRequestRing.self, base: 0)
        next.giveBack([2, 0])
        #expect((0..<3).map(remains.returned) == [11, 12, 10])
        // The ring goes on.
        remains.makeAvailable(id: 13, at: 3)
        let slots = next.takeAll()
        #expect(slots.count == 1)
        next.giveBack(slots)
        #expect(remains.returned(3) == 13)
    }

    @Test func `a packed ring, death between the mark and inflight = 0: nothing runs twice and the ring goes on`()
        throws
    {
        try expectContinuation(try publishedPacked())
    }

    @Test func `a packed ring, death between inflight = 0 and the old fields: the ring goes on, whichever slot it was`()
        throws
    {
        let remains = try publishedPacked()
        remains.store8(0, 32 + 32)
        try expectContinuation(remains)
    }

    @Test func `a packed ring, death before the mark: the request is carried out again`() throws {
        let remains = try publishedPacked()
        // The mark is the only thing that says that it happened.
        unsafe wire_store16(remains.ring.base + 14, UInt16(WIRE_VIRTQ_DESC_F_AVAIL))
        let next = try remains.successor(PackedRequestRing.self, base: 0)
        #expect(next.plan.heads == [0, 1, 2])
        next.giveBack([1, 2, 0])
        #expect((0..<3).map(remains.returned) == [11, 12, 10])
    }

    @Test func `a packed request is carried out again from its copy, its place in the ring being written over`() throws
    {
        let remains = try Remains(isPacked: true)
        for index in 0..<2 { remains.makeAvailable(id: UInt16(20 + index), at: index) }
        unsafe wire_store64(remains.ring.base, 0x1000)
        unsafe wire_store64(remains.ring.base + 16, 0x2000)
        let worker = try remains.successor(PackedRequestRing.self, base: 0x8000_8000)
        #expect(worker.takeAll() == [0, 1])
        worker.giveBack([1])
        unsafe wire_store64(remains.ring.base, 0xdead)
        let next = try remains.successor(PackedRequestRing.self, base: 0)
        #expect(next.plan.heads == [0])
        // The copy in the log: entry 0's address.
        #expect(remains.load64(32 + 24) == 0x1000)
        next.giveBack([0])
        #expect(remains.returned(1) == 20)
    }
}
