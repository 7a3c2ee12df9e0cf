import SimulationKit
import Testing
import Virtio

/// Which buffers a chain has, and what is wrong with it: VIRTIO 1.2, sections 2.7.4 and 2.7.5.
@Suite("Descriptor chains")
struct DescriptorChainTests {
    let guest: SimulatedGuest
    let walker: Walker
    /// Guest addresses of buffers and of a table, far from each other.
    static let one: UInt64 = 0x10100
    static let two: UInt64 = 0x10900
    static let three: UInt64 = 0x11100
    static let table: UInt64 = 0x12000
    /// 8 bytes before the end of region `a`, behind which region `b` begins.
    static let border: UInt64 = 0x13ff8
    /// 8 bytes before the end of region `b`, behind which there is nothing.
    static let edge: UInt64 = 0x17ff8

    init() throws {
        guest = try World.makeGuest(queueSize: 8)
        walker = Walker(guest)
    }

    /// Walks descriptors placed at 0, 1, …
    func walk(_ chain: Descriptor...) -> Walk {
        for (index, descriptor) in chain.enumerated() { guest.setDescriptor(descriptor, at: index) }
        return walker.walk()
    }

    /// Walks a table of descriptors placed at `address`, to which descriptor 0 refers.
    func walk(table: [Descriptor], at address: UInt64 = table) -> Walk {
        guest.setTable(table, at: address)
        return walk(.table(address, count: table.count))
    }

    @Test("what the device reads comes first, then what it writes, each in order")
    func inOrder() {
        let walk = walk(.readable(Self.two, 16, next: 1), .readable(Self.one, 512, next: 2), .writable(Self.three, 1))
        #expect(walk.verdict == .sound)
        #expect(walk.readable == [Extent(Self.two, 16), Extent(Self.one, 512)])
        #expect(walk.writable == [Extent(Self.three, 1)])
    }

    @Test("a chain may begin anywhere and jump")
    func jumps() {
        guest.setDescriptor(.readable(Self.one, 16, next: 2), at: 7)
        guest.setDescriptor(.writable(Self.two, 9), at: 2)
        let walk = walker.walk(from: 7)
        #expect(walk.verdict == .sound)
        #expect(walk.readable == [Extent(Self.one, 16)])
        #expect(walk.writable == [Extent(Self.two, 9)])
    }

    @Test("a chain may use the whole table")
    func wholeTable() {
        for index in 0..<8 {
            guest.setDescriptor(.readable(Self.one, 1, next: index == 7 ? nil : UInt16(index + 1)), at: index)
        }
        #expect(walker.walk().verdict == .sound)
        #expect(walker.walk().readable.count == 8)
    }

    @Test("descriptors without bytes are legal and count for nothing")
    func emptyDescriptors() {
        let walk = walk(
            .readable(Self.one, 16, next: 1), .readable(World.gap, 0, next: 2), .writable(Self.two, 1, next: 3),
            .writable(.max, 0))
        #expect(walk.verdict == .sound)
        #expect(walk.readable == [Extent(Self.one, 16)])
        #expect(walk.writable == [Extent(Self.two, 1)])
    }

    @Test("a buffer that crosses regions is cut at the border")
    func crossesRegions() {
        let walk = walk(.readable(Self.border, 16, next: 1), .writable(Self.border, 9))
        #expect(walk.verdict == .sound)
        #expect(walk.readable == [Extent(Self.border, 8), Extent(0x14000, 8)])
        #expect(walk.writable == [Extent(Self.border, 8), Extent(0x14000, 1)])
    }

    @Test("the last byte of a region is in memory, the one behind it is not")
    func lastByte() {
        #expect(walk(.readable(0x17fff, 1)).verdict == .sound)
        #expect(walk(.readable(0x17fff, 2)).fault == .badAddress)
        #expect(walk(.readable(0x18000, 1)).fault == .badAddress)
        #expect(walk(.readable(.max, 1)).verdict == .sound)
        #expect(walk(.readable(.max, 2)).fault == .badAddress)
    }

    @Test("an address that wraps around is bad, whatever lies at 0", arguments: [2, 17, 0x20000, .max] as [UInt32])
    func wraps(length: UInt32) {
        let walk = walk(.readable(.max, length, next: 1), .writable(Self.one, 1))
        #expect(walk.fault == .badAddress)
        #expect(walk.lastWritableByte == Self.one)
    }

    @Test("a loop has no end", arguments: [0, 1, 2] as [UInt16])
    func loops(target: UInt16) {
        let walk = walk(
            .readable(Self.one, 16, next: 1), .readable(Self.two, 16, next: 2), .readable(Self.three, 1, next: target))
        #expect(walk.verdict == .endless)
        #expect(walk.fault == .tooLong)
    }

    @Test("a next descriptor outside the table has no end", arguments: [8, 9, 0x7fff, 0xffff] as [UInt16])
    func nextOutOfRange(next: UInt16) {
        let walk = walk(.readable(Self.one, 16, next: next))
        #expect(walk.verdict == .endless)
        #expect(walk.fault == .descriptorIndex)
    }

    @Test("what the device reads must not follow what it writes; the status still has its place")
    func readableAfterWritable() {
        let walk = walk(
            .readable(Self.one, 16, next: 1), .writable(Self.two, 1, next: 2), .readable(Self.three, 8, next: 3),
            .writable(Self.table, 4))
        #expect(walk.verdict == .faulty)
        #expect(walk.fault == .readableAfterWritable)
        #expect(walk.lastWritableByte == Self.table + 3)
    }

    @Test("a bad writable buffer at the end leaves no place for a status, not even a part of it")
    func badLastWritable() {
        let walk = walk(
            .readable(Self.one, 16, next: 1), .writable(Self.two, 8, next: 2), .writable(Self.edge, 16))
        #expect(walk.fault == .badAddress)
        #expect(walk.writable.isEmpty)
    }

    @Test("a bad writable buffer before a good one leaves the status its place")
    func badWritableBefore() {
        let walk = walk(
            .readable(Self.one, 16, next: 1), .writable(World.gap, 8, next: 2), .writable(Self.two, 4))
        #expect(walk.fault == .badAddress)
        #expect(walk.lastWritableByte == Self.two + 3)
    }

    // MARK: Indirect tables

    @Test("an indirect table holds the chain")
    func indirect() {
        let walk = walk(table: [
            .readable(Self.one, 16, next: 2), .writable(Self.three, 1), .readable(Self.two, 512, next: 1),
        ])
        #expect(walk.verdict == .sound)
        #expect(walk.readable == [Extent(Self.one, 16), Extent(Self.two, 512)])
        #expect(walk.writable == [Extent(Self.three, 1)])
    }

    @Test("direct descriptors may come before an indirect table")
    func directThenIndirect() {
        guest.setTable([.readable(Self.two, 512, next: 1), .writable(Self.three, 1)], at: Self.table)
        let walk = walk(.readable(Self.one, 16, next: 1), .table(Self.table, count: 2))
        #expect(walk.verdict == .sound)
        #expect(walk.readable == [Extent(Self.one, 16), Extent(Self.two, 512)])
        #expect(walk.writable == [Extent(Self.three, 1)])
    }

    @Test("the write flag of the descriptor that refers to a table means nothing (2.7.5.3.2)")
    func writeFlagOfReference() {
        guest.setTable([.readable(Self.one, 16, next: 1), .writable(Self.three, 1)], at: Self.table)
        var reference = Descriptor.table(Self.table, count: 2)
        reference.flags |= DescriptorFlag.write
        #expect(walk(reference).verdict == .sound)
    }

    @Test("an indirect table needs INDIRECT_DESC")
    func notAgreed() {
        guest.setTable([.writable(Self.three, 1)], at: Self.table)
        guest.setDescriptor(.table(Self.table, count: 1), at: 0)
        let walk = Walker(guest, features: 0).walk()
        #expect(walk.verdict == .endless)
        #expect(walk.fault == .indirectNotAgreed)
    }

    @Test("a table that crosses regions, within a descriptor or between two, is read whole", arguments: [1, 8, 15, 16])
    func tableCrossesRegions(before: UInt64) {
        let table: [Descriptor] = [.readable(Self.one, 16, next: 1), .writable(Self.three, 1)]
        let walk = walk(table: table, at: 0x14000 - before)
        #expect(walk.verdict == .sound)
        #expect(walk.readable == [Extent(Self.one, 16)])
        #expect(walk.writable == [Extent(Self.three, 1)])
    }

    @Test("a table that leaves memory is bad where it is read, not before")
    func tableLeavesMemory() {
        guest.setTable([.writable(Self.one, 1)], at: 0x17ff0)
        #expect(walk(.table(0x17ff0, count: 2)).verdict == .sound)
        guest.setTable([.readable(Self.one, 1, next: 1)], at: 0x17ff0)
        #expect(walk(.table(0x17ff0, count: 2)).fault == .badIndirectTable)
        #expect(walk(.table(World.gap, count: 1)).fault == .badIndirectTable)
        #expect(walk(.table(.max - 8, count: 1)).fault == .badIndirectTable)
    }

    @Test("a table is a number of whole descriptors, 1 to 1024", arguments: [0, 1, 15, 17, 24, 16400, 0xffff_fff0])
    func badTableLength(length: UInt32) {
        guest.setTable([.writable(Self.one, 1)], at: Self.table)
        let walk = walk(Descriptor(address: Self.table, length: length, flags: DescriptorFlag.indirect, next: 0))
        #expect(walk.verdict == .endless)
        #expect(walk.fault == .badIndirectTable)
    }

    @Test("nothing may follow a table")
    func nothingFollowsATable() {
        guest.setTable([.writable(Self.one, 1)], at: Self.table)
        var reference = Descriptor.table(Self.table, count: 1)
        reference.flags |= DescriptorFlag.next
        reference.next = 1
        #expect(walk(reference, .writable(Self.two, 1)).fault == .badIndirectTable)
    }

    @Test("a table in a table is refused")
    func nested() {
        let walk = walk(table: [.readable(Self.one, 16, next: 1), .table(Self.table, count: 1)])
        #expect(walk.verdict == .endless)
        #expect(walk.fault == .nestedIndirect)
    }

    @Test("a loop in a table has no end, and an index outside of it neither")
    func loopInTable() {
        #expect(walk(table: [.readable(Self.one, 1, next: 0)]).fault == .tooLong)
        #expect(walk(table: [.readable(Self.one, 1, next: 1), .readable(Self.one, 1, next: 0)]).fault == .tooLong)
        // Beyond the table, but not beyond the ring: the indices of a table are its own.
        #expect(walk(table: [.readable(Self.one, 1, next: 1)]).fault == .tooLong)
        #expect(
            walk(table: [.readable(Self.one, 1, next: 2), .readable(Self.one, 1)]).fault == .descriptorIndex)
    }

    @Test("a table may hold 1024 descriptors, more than the ring")
    func longTable() {
        var table = (0..<1024).map { Descriptor.readable(Self.one, 1, next: UInt16($0 + 1)) }
        table[1023] = .writable(Self.two, 1)
        let walk = walk(table: table, at: 0x14000)
        #expect(walk.verdict == .sound)
        #expect(walk.readable.count == 1023)
    }

    @Test("more segments than there is room for are a fault; the status keeps its place")
    func tooManySegments() {
        let walker = Walker(guest, capacity: 4)
        func walk(readable: Int, writable: Int) -> Walk {
            let count = readable + writable
            for index in 0..<count {
                let next = index == count - 1 ? nil : UInt16(index + 1)
                let address = Self.one + UInt64(16 * index)
                guest.setDescriptor(
                    index < readable ? .readable(address, 8, next: next) : .writable(address, 8, next: next), at: index)
            }
            return walker.walk()
        }
        #expect(walk(readable: 3, writable: 1).verdict == .sound)
        for (readable, writable) in [(4, 1), (6, 1), (6, 2), (1, 4), (1, 6), (0, 5), (0, 8)] {
            let walk = walk(readable: readable, writable: writable)
            #expect(walk.fault == .tooManySegments)
            #expect(walk.lastWritableByte == Self.one + UInt64(16 * (readable + writable - 1)) + 7)
        }
        #expect(walk(readable: 5, writable: 0).writable.isEmpty)
    }
}
