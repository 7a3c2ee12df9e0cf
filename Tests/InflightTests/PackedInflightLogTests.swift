import CWire
import Inflight
import Platform
import Testing
import Virtio

/// The log of a packed ring, as a successor finds it. Each test leaves behind what a death between two stores would.
@Suite struct PackedInflightLogTests {
    private static let freeHead = 12
    private static let oldFreeHead = 14
    private static let usedIndex = 16
    private static let oldUsedIndex = 18

    @Test func `a fresh region on a ring that was used starts where the front-end says`() throws {
        let world = try PackedWorld()
        let (device, plan) = try world.successor(base: 0x8005_0003)
        #expect(plan.isFresh && plan.heads.isEmpty)
        #expect(device.base == 0x8005_0003)
        #expect(world.header16(8) == 1 && world.header16(10) == 8)
        #expect(world.header16(Self.usedIndex) == 5 && world.header16(Self.oldUsedIndex) == 5)
        // The log knows better from then on.
        #expect(try world.successor(base: 0).device.base == 0x8005_8005)
    }

    @Test func `a front-end that names a place outside the ring is refused`() throws {
        let world = try PackedWorld()
        #expect(throws: InflightLogError.self) { _ = try world.successor(base: 0x8000_8008) }
        #expect(world.header16(8) == 0)
    }

    @Test func `what was taken is carried out again from its copies`() throws {
        let world = try PackedWorld()
        var device = try world.successor().device
        world.send(1, lengths: [16, 512, 1])
        world.send(2, lengths: [16, 1])
        world.send(3)
        let slots = (0..<3).compactMap { _ in device.take() }
        device.finish([slots[1]])
        #expect(world.takeUsed() == [2])
        // The ring has been written over: nothing there is needed.
        for index in 0..<6 { unsafe wire_store64(world.guest.base + 16 * index, 0xdead) }
        let plan: RecoveryPlan
        (device, plan) = try world.successor()
        #expect(plan.heads == [slots[0], slots[2]] && plan.struckOff == 0)
        #expect(device.walk(slots[0]) == (528, 1, "sound"))
        // What the next one takes comes after.
        world.send(4)
        let newest = try #require(device.take())
        #expect(try world.successor().plan.heads == [slots[0], slots[2], newest])
        device.finish([newest, slots[2], slots[0]])
        #expect(world.takeUsed() == [4, 3, 1])
    }

    @Test func `a request half logged is taken again`() throws {
        let world = try PackedWorld()
        let device = try world.successor().device
        world.send(1, lengths: [16, 1])
        // Copied; then even marked as in flight, but its entries are free still.
        _ = device.takeOnly()
        unsafe wire_store8(world.log.base + 32, 1)
        let (next, plan) = try world.successor()
        #expect(plan.heads.isEmpty)
        #expect(!world.isInFlight(0))
        #expect(next.take() != nil)
    }

    /// Two requests given back, and everything up to their publication undone: what a death leaves after
    /// `willPublish`, with some of the used descriptors marked.
    @Test(arguments: [[], [1], [1, 2]]) func `a publication that was not shown is undone`(marked: [Int]) throws {
        let world = try PackedWorld()
        let device = try world.successor().device
        for id in 1...3 { world.send(UInt16(id)) }
        let slots = (0..<3).compactMap { _ in device.take() }
        // Links of the batch, the free list's head, the new position: the old ones stay.
        for (slot, next) in [(0, 3), (1, 0), (2, 1)] { world.setEntry16(slot, 2, UInt16(next)) }
        world.setHeader16(Self.freeHead, 2)
        world.setHeader16(Self.usedIndex, 3)
        // All but the first are marked before it.
        for index in marked { world.put(index, address: 0, length: 1, id: UInt16(index + 1), flags: 0x8080) }
        var (next, plan) = try world.successor()
        #expect(plan.heads == slots)
        #expect(plan.struckOff == 0)
        #expect(world.takeUsed().isEmpty)
        // In another order than before: a mark left behind would return a request that is not done.
        next.finish([slots[2]])
        #expect(world.takeUsed() == [3])
        (next, plan) = try world.successor()
        next.finish([slots[1], slots[0]])
        #expect(world.takeUsed() == [2, 1])
    }

    /// What a death leaves between the mark of the first used descriptor and the end of `publish`.
    @Test(arguments: 0...3) func `what was shown is never carried out again`(step: Int) throws {
        let world = try PackedWorld()
        let device = try world.successor().device
        for id in 1...3 { world.send(UInt16(id)) }
        let slots = (0..<3).compactMap { _ in device.take() }
        device.finish([slots[0], slots[1]])
        // Back from the end, one store after the other: positions, free heads, flags.
        if step < 3 {
            world.setHeader16(Self.oldUsedIndex, 0)
        }
        if step < 2 { world.setHeader16(Self.oldFreeHead, 3) }
        if step < 1 { for slot in slots[0...1] { unsafe wire_store8(world.log.base + 32 + 32 * Int(slot), 1) } }
        let (next, plan) = try world.successor()
        #expect(plan.heads == [slots[2]])
        #expect(plan.struckOff == (step < 1 ? 2 : 0))
        #expect(world.takeUsed() == [1, 2])
        next.finish([slots[2]])
        #expect(world.takeUsed() == [3])
    }

    @Test func `a batch of the whole ring is told from none`() throws {
        let world = try PackedWorld(size: 4)
        let device = try world.successor().device
        for id in 1...4 { world.send(UInt16(id)) }
        let slots = (0..<4).compactMap { _ in device.take() }
        device.finish(slots)
        // As before the last store: the index is the same, only the wrap counter is not.
        unsafe wire_store8(world.log.base + 21, 1)
        for slot in slots { unsafe wire_store8(world.log.base + 32 + 32 * Int(slot), 1) }
        let (next, plan) = try world.successor()
        #expect(plan.heads.isEmpty && plan.struckOff == 4)
        #expect(next.base == 0)
    }

    @Test func `a log that contradicts itself is refused and not touched`() throws {
        let damages: [(String, (PackedWorld) -> Void)] = [
            ("a later version", { $0.setHeader16(8, 2) }),
            ("another ring", { $0.setHeader16(10, 9) }),
            ("a position outside", { $0.setHeader16(Self.usedIndex, 8) }),
            ("a loop in the free list", { $0.setEntry16(7, 2, 3) }),
            ("entries that are in no list", { $0.setEntry16(4, 2, 8) }),
            ("a chain that is free", { $0.setEntry16(0, 2, 5) }),
            ("a chain too long", { $0.setEntry16(0, 6, 9) }),
            ("a chain of nothing", { $0.setEntry16(0, 6, 0) }),
        ]
        for (name, damage) in damages {
            let world = try PackedWorld()
            do {
                let device = try world.successor().device
                world.send(1, lengths: [16, 512, 1])
                _ = device.take()
            }
            damage(world)
            func image() -> [UInt8] {
                unsafe Array(UnsafeRawBufferPointer(start: world.log.base, count: world.log.count))
            }
            let before = image()
            #expect(throws: InflightLogError.self, "\(name)") { _ = try world.successor() }
            #expect(image() == before, "\(name)")
        }
    }

    @Test func `a region for split rings has no room`() throws {
        let fd = try InflightRegion.makeFile(queueCount: 1, queueSize: 8)
        let count = InflightRegion.byteCount(queueCount: 1, queueSize: 8)
        let region = try InflightRegion(fd: fd, offset: 0, count: UInt64(count), queueCount: 1, queueSize: 8)
        #expect(throws: InflightLogError.self) { _ = try PackedInflightLog(region, queue: 0, size: 8) }
        #expect(throws: InflightLogError.self) { _ = try PackedInflightLog(region, queue: 1, size: 1) }
    }
}
