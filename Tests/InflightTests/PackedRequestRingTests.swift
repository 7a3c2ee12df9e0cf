import CWire
import Inflight
import Platform
import Testing
import Virtio

/// Packed rings, taken from and returned to.
@Suite struct PackedRequestRingTests {
    @Test func `chains come one after the other, and their ids go back as they came`() throws {
        let world = try PackedWorld()
        let (device, plan) = try world.successor()
        #expect(plan.isFresh)
        world.send(7, lengths: [16, 512, 1])
        world.send(0xbeef)
        #expect(device.availableCount == 8)
        let slots = [try #require(device.take()), try #require(device.take())]
        #expect(device.take() == nil)
        #expect(device.walk(slots[0]).readable == 528)
        #expect(device.walk(slots[0]).writable == 1)
        #expect(device.walk(slots[1]).writable == 16)
        #expect(world.takeUsed().isEmpty)
        device.finish(slots.reversed())
        #expect(world.takeUsed() == [0xbeef, 7])
        #expect(device.base == 0x8004_8004)
    }

    @Test(arguments: [1, 2, 3, 5, 8, 100]) func `laps follow each other`(size: Int) throws {
        let world = try PackedWorld(size: size)
        let device = try world.successor().device
        var sent: UInt16 = 0
        for round in 0..<300 {
            let ids = (0..<1 + round % size).map { sent &+ UInt16($0) }
            for id in ids { world.send(id) }
            sent &+= UInt16(ids.count)
            var slots = ids.compactMap { _ in device.take() }
            #expect(slots.count == ids.count && device.take() == nil)
            if round % 2 == 0 { slots.reverse() }
            device.finish(slots)
            #expect(world.takeUsed() == (round % 2 == 0 ? ids.reversed() : ids))
        }
        #expect(PackedStanding(base: device.base) == PackedStanding(available: world.available, used: world.used))
    }

    @Test func `the same id twice comes back twice`() throws {
        let world = try PackedWorld()
        let device = try world.successor().device
        for _ in 0..<2 { world.send(3) }
        let slots = [try #require(device.take()), try #require(device.take())]
        #expect(slots[0] != slots[1])
        device.finish([slots[0]])
        #expect(world.takeUsed() == [3])
        world.lengths[3] = 1
        device.finish([slots[1]])
        #expect(world.takeUsed() == [3])
    }

    @Test func `a chain without an end breaks the queue, what was given back is shown all the same`() throws {
        let world = try PackedWorld(size: 4)
        let device = try world.successor().device
        world.send(9)
        let slot = try #require(device.take())
        for _ in 0..<3 { world.send(id: 1, length: 16, flags: 1) }
        #expect(device.availableCount == 3)
        #expect(device.takeOnly() == nil)
        #expect(device.availableCount == nil)
        world.lengths = [9: 1]
        device.finish([slot])
        #expect(world.takeUsed() == [9])
    }

    @Test func `a chain that goes on in a descriptor which is not available breaks the queue`() throws {
        let world = try PackedWorld()
        let device = try world.successor().device
        world.send(id: 1, length: 16, flags: 1)
        #expect(device.takeOnly() == nil)
        #expect(device.availableCount == nil)
    }

    @Test func `an indirect table is as long as its descriptor says, whatever its NEXT flags`() throws {
        let world = try PackedWorld()
        let device = try world.successor().device
        let first = Int(PackedWorld.tableAddress) / 16
        world.put(first, address: PackedWorld.bufferAddress, length: 16, id: 99, flags: 0)
        world.put(first + 1, address: PackedWorld.bufferAddress, length: 600, id: 0, flags: 3)
        world.put(first + 2, address: PackedWorld.bufferAddress, length: 1, id: 0, flags: 2)
        world.send(id: 5, address: PackedWorld.tableAddress, length: 48, flags: 4)
        let slot = try #require(device.take())
        #expect(device.walk(slot) == (16, 601, "sound"))
    }

    @Test func `broken tables are returned with nothing done`() throws {
        let cases: [(address: UInt64, length: UInt32, features: UInt64, fault: String)] = [
            (PackedWorld.tableAddress, 40, 1 << 28, "badIndirectTable"),
            (PackedWorld.tableAddress, 0, 1 << 28, "badIndirectTable"),
            (UInt64.max - 8, 32, 1 << 28, "badIndirectTable"),
            (UInt64(PackedWorld.memoryBytes) - 16, 32, 1 << 28, "badIndirectTable"),
            (PackedWorld.tableAddress, 16 * 1025, 1 << 28, "badIndirectTable"),
            (PackedWorld.tableAddress, 16, 0, "indirectNotAgreed"),
            (PackedWorld.tableAddress + 0x100, 16, 1 << 28, "nestedIndirect"),
        ]
        for (number, broken) in cases.enumerated() {
            let world = try PackedWorld(features: broken.features)
            let device = try world.successor().device
            world.put(
                Int(PackedWorld.tableAddress + 0x100) / 16, address: PackedWorld.tableAddress, length: 16, id: 0,
                flags: 4)
            world.send(id: 5, address: broken.address, length: broken.length, flags: 4)
            let slot = try #require(device.take())
            #expect(device.walk(slot).verdict.contains(broken.fault), "case \(number)")
            device.finish([slot])
            #expect(world.takeUsed() == [5])
        }
        // Descriptors of both kinds in one chain.
        let world = try PackedWorld()
        let device = try world.successor().device
        world.send(id: 0, length: 16, flags: 1)
        world.send(id: 5, address: PackedWorld.tableAddress, length: 16, flags: 4)
        let slot = try #require(device.take())
        #expect(device.walk(slot).verdict.contains("badIndirectTable"))
    }

    @Test func `whatever a ring holds, nothing traps`() throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        var state = seed
        func random(_ bound: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(bound))
        }
        for _ in 0..<2000 {
            let world = try PackedWorld(size: 1 + random(9), isKept: random(2) == 0)
            let device = try world.successor().device
            var slots: [UInt16] = []
            for _ in 0..<20 {
                for index in 0..<world.size {
                    let flags = random(8) | (random(4) > 0 ? 0x80 : 0) | (random(4) == 0 ? 0x8000 : 0)
                    world.put(
                        index, address: UInt64(random(PackedWorld.memoryBytes + 64)), length: UInt32(random(4096)),
                        id: UInt16(random(65536)), flags: UInt16(flags))
                }
                unsafe wire_store32(world.guest.base + PackedWorld.eventsAddress, UInt32(truncatingIfNeeded: state))
                for _ in 0..<(device.availableCount ?? 0) {
                    guard let slot = device.take() else { break }
                    _ = device.walk(slot)
                    slots.append(slot)
                }
                #expect(slots.count <= world.size && Set(slots).count == slots.count, "seed \(seed)")
                let done = slots.filter { _ in random(2) == 0 }
                slots.removeAll { done.contains($0) }
                device.finish(done)
            }
        }
    }
}

/// Kicks and interrupts of packed rings.
@Suite struct PackedNotificationTests {
    @Test(arguments: [false, true]) func `the driver is asked for kicks before sleep only`(eventIndex: Bool) throws {
        let world = try PackedWorld(features: eventIndex ? 1 << 29 : 0)
        let device = try world.successor().device
        func events() -> UInt32 { unsafe wire_load32(world.guest.base + PackedWorld.deviceEventsAddress) }
        device.disableKicks()
        #expect(events() >> 16 == 1)
        #expect(!device.enableKicks())
        #expect(events() == (eventIndex ? 0x2_8000 : 0x0_8000))
        world.send(1)
        #expect(device.enableKicks())
    }

    @Test func `interrupts come when the driver's event is passed, also around the end of the ring`() throws {
        for start in 0..<16 {
            for event in 0..<16 {
                let world = try PackedWorld(features: 1 << 29)
                let device = try world.successor().device
                func pass(_ count: Int) -> Bool {
                    for id in 0..<count { world.send(UInt16(id)) }
                    let slots = (0..<count).compactMap { _ in device.take() }
                    for slot in slots { device.giveBack(slot, written: 0) }
                    return device.publish()
                }
                if start > 0 { _ = pass(min(start, 8)) }
                if start > 8 { _ = pass(start - 8) }
                var wanted = RingPosition(index: 0, wrap: true)
                for _ in 0..<event { wanted.advance(by: 1, size: 8) }
                let word = UInt32(wanted.rawValue) | 2 << 16
                unsafe wire_store32(world.guest.base + PackedWorld.eventsAddress, word)
                // Positions more than a lap away mean another lap: they are not asked for.
                let distance = event - start
                if distance < -8 || distance >= 8 { continue }
                #expect(pass(3) == (0..<3).contains(distance), "from \(start), event \(event)")
            }
        }
    }

    @Test func `interrupts are always or never sent where the driver says so`() throws {
        let world = try PackedWorld(features: 1 << 29)
        let device = try world.successor().device
        for (flags, isWanted) in [(0, true), (1, false), (3, true)] as [(UInt32, Bool)] {
            unsafe wire_store32(world.guest.base + PackedWorld.eventsAddress, flags << 16 | 0x7fff)
            world.send(0)
            let slot = try #require(device.take())
            device.giveBack(slot, written: 0)
            #expect(device.publish() == isWanted)
        }
    }
}
