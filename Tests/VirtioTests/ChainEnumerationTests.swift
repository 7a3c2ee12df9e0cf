import SimulationKit
import Testing
import Virtio

/// Every chain of up to three descriptors over an alphabet that has one letter for each way in which a descriptor can
/// be good or bad. A descriptor that the walk never reaches is not varied.
@Suite("All small chains")
struct ChainEnumerationTests {
    /// Addresses and lengths of buffers.
    static let buffers: [(UInt64, UInt32)] = [
        (0x10100, 16),  // in the middle of a region
        (0x10200, 0),  // empty
        (0x13ff8, 16),  // over the border of two regions
        (0x17fff, 1),  // the last byte before a gap
        (0x17ff8, 16),  // half of it in a gap
        (World.gap, 1),  // in a gap
        (.max - 3, 16),  // wraps around
        (World.top.guestAddress + 0xfff0, 16),  // the last bytes there are
        (0x10300, .max),  // far too long
    ]

    static let goodTable: UInt64 = 0x12000
    static let crossingTable: UInt64 = 0x13fe8
    static let loopingTable: UInt64 = 0x12100
    static let nestingTable: UInt64 = 0x12200
    static let faultyTable: UInt64 = 0x12300

    static let tables: [UInt64: [Descriptor]] = [
        goodTable: [.readable(0x10400, 4, next: 1), .writable(0x10500, 5)],
        crossingTable: [.writable(0x10600, 6, next: 1), .writable(0x13fff, 2)],
        loopingTable: [.writable(0x10700, 7, next: 0)],
        nestingTable: [.writable(0x10800, 8, next: 1), .table(goodTable, count: 2)],
        faultyTable: [.writable(0x10900, 9, next: 1), .readable(0x10a00, 10)],
    ]

    /// Every descriptor of a table of `count`.
    static func alphabet(count: Int) -> [Descriptor] {
        var letters: [Descriptor] = []
        for (address, length) in buffers {
            for write in [0, DescriptorFlag.write] {
                letters.append(Descriptor(address: address, length: length, flags: write, next: 0))
                for next in 0...count {
                    let flags = write | DescriptorFlag.next
                    letters.append(Descriptor(address: address, length: length, flags: flags, next: UInt16(next)))
                }
            }
        }
        for (address, table) in tables { letters.append(.table(address, count: table.count)) }
        var withNext = Descriptor.table(goodTable, count: 2)
        withNext.flags |= DescriptorFlag.next
        var withWrite = Descriptor.table(goodTable, count: 2)
        withWrite.flags |= DescriptorFlag.write
        var uneven = Descriptor.table(goodTable, count: 2)
        uneven.length += 1
        return letters + [withNext, withWrite, uneven, .table(goodTable, count: 0), .table(World.gap, count: 1)]
    }

    /// Calls `body` with every table of `count` descriptors, as far as a walk from 0 can tell them apart.
    static func forEachTable(count: Int, _ body: ([Descriptor]) -> Void) {
        let letters = alphabet(count: count)
        func vary(_ index: Int, _ chosen: [Int: Descriptor]) {
            for letter in letters {
                var chosen = chosen
                chosen[index] = letter
                let next = Int(letter.next)
                if letter.hasNext, !letter.isIndirect, next < count, chosen[next] == nil {
                    vary(next, chosen)
                } else {
                    body((0..<count).map { chosen[$0] ?? .readable(0, 0) })
                }
            }
        }
        vary(0, [:])
    }

    /// What of a walk can be compared with an opinion.
    static func summary(_ walk: Walk) -> ChainReference.Opinion {
        switch walk.verdict {
        case .endless: ChainReference.Opinion(verdict: .endless)
        case .faulty: ChainReference.Opinion(verdict: .faulty, status: walk.lastWritableByte)
        case .sound:
            ChainReference.Opinion(
                verdict: .sound, readable: walk.readableBytes, writable: walk.writableBytes,
                status: walk.lastWritableByte)
        }
    }

    @Test("in the ring", arguments: [1, 2, 3])
    func direct(count: Int) throws {
        let guest = try World.makeGuest(queueSize: count)
        let walker = Walker(guest)
        for (address, table) in Self.tables { guest.setTable(table, at: address) }
        var (chains, differences) = (0, 0)
        Self.forEachTable(count: count) { table in
            chains += 1
            guest.setTable(table, at: guest.ring.descriptors)
            let opinion = ChainReference(table: table, tables: Self.tables).opinion()
            let summary = Self.summary(walker.walk())
            if summary != opinion, differences < 10 {
                differences += 1
                Issue.record("\(table): the walk says \(summary), the reference \(opinion)")
            }
        }
        print("compared \(chains) chains in a ring of \(count)")
        #expect(chains > 50)
    }

    @Test("in an indirect table, directly or behind a direct descriptor", arguments: [1, 2, 3], [false, true])
    func indirect(count: Int, behindDirect: Bool) throws {
        let guest = try World.makeGuest(queueSize: 4)
        let walker = Walker(guest)
        for (address, table) in Self.tables { guest.setTable(table, at: address) }
        let place: UInt64 = 0x14000 - 24
        var ring: [Descriptor] = [.table(place, count: count)]
        if behindDirect { ring.insert(.writable(0x10b00, 3, next: 1), at: 0) }
        guest.setTable(ring, at: guest.ring.descriptors)
        var (chains, differences) = (0, 0)
        Self.forEachTable(count: count) { table in
            // The crossing table lies where this one does.
            if table.contains(where: { $0.isIndirect && $0.address == Self.crossingTable }) { return }
            chains += 1
            guest.setTable(table, at: place)
            let opinion = ChainReference(table: ring, tables: [place: table]).opinion()
            let summary = Self.summary(walker.walk())
            if summary != opinion, differences < 10 {
                differences += 1
                Issue.record("\(table): the walk says \(summary), the reference \(opinion)")
            }
        }
        print("compared \(chains) chains in an indirect table of \(count)")
        #expect(chains > 50)
    }
}
