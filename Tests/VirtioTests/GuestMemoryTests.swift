import Platform
import SimulationKit
import Testing
import Virtio

@Suite("Guest memory")
struct GuestMemoryTests {
    let guest: SimulatedGuest

    init() throws {
        guest = try World.makeGuest()
    }

    /// The bytes from an address to the end of its region, as the device sees it; nil in no region.
    func bytesLeft(at address: UInt64) -> UInt64? {
        var view = guest.memory.view
        return view.translate(address)?.count
    }

    /// The byte that the device sees at an address.
    func byte(at address: UInt64) -> UInt8? {
        var view = guest.memory.view
        guard let span = view.translate(address) else { return nil }
        return unsafe span.host.load(as: UInt8.self)
    }

    @Test("an address leads to the byte that the driver has there")
    func leadsToTheByte() {
        for (index, placement) in World.placements.enumerated() {
            let mark = UInt8(0x40 + index)
            for offset in [0, 1, placement.size / 2, placement.size - 1] {
                let address = placement.guestAddress + UInt64(offset)
                guest.write([mark], at: address)
                #expect(byte(at: address) == mark)
                #expect(bytesLeft(at: address) == UInt64(placement.size - offset))
            }
        }
    }

    @Test("an address outside every region leads nowhere")
    func gapsLeadNowhere() {
        for address in [0, 0xffff, 0x18000, World.gap, 0x1ffff, 0x21923, 0x21fff, World.top.guestAddress - 1]
            as [UInt64]
        {
            #expect(!World.holds(address))
            #expect(bytesLeft(at: address) == nil, "\(String(address, radix: 16))")
        }
    }

    @Test("regions that follow each other in guest addresses stay two")
    func contiguousRegionsStayTwo() {
        #expect(bytesLeft(at: 0x13fff) == 1)
        #expect(bytesLeft(at: 0x14000) == 0x4000)
    }

    @Test("the last region found does not hide the others")
    func theCacheHidesNothing() {
        var view = guest.memory.view
        for address in [0x10000, 0x14000, 0x13fff, 0x20000, 0x17fff, 0x10000] as [UInt64] {
            #expect(view.translate(address) != nil)
            #expect(view.translate(World.gap) == nil)
            #expect(view.translate(0xffff) == nil)
        }
    }

    @Test("no memory at all is legal and leads nowhere")
    func emptyMemory() {
        var view = GuestMemory([]).view
        #expect(view.translate(0) == nil)
        #expect(view.translate(.max) == nil)
        let resolved = unsafe GuestMemory([]).resolve(frontendAddress: 0, count: 1, alignment: 1) != nil
        #expect(!resolved)
    }

    @Test("bytes are copied out over region borders, and only where all of them are in memory")
    func copiesOverBorders() {
        let bytes: [UInt8] = Array(1...16)
        guest.write(bytes, at: 0x13ff8)
        var view = guest.memory.view
        var copy = [UInt8](repeating: 0, count: 16)
        #expect(unsafe view.copyOut(0x13ff8, to: &copy, count: 16))
        #expect(copy == bytes)
        #expect(unsafe !view.copyOut(0x17ff8, to: &copy, count: 16))
        #expect(unsafe !view.copyOut(.max - 4, to: &copy, count: 16))
        #expect(unsafe !view.copyOut(World.gap, to: &copy, count: 1))
        #expect(unsafe view.copyOut(World.gap, to: &copy, count: 0))
    }

    @Test("a front-end address is resolved only when one region has all of it, aligned")
    func resolvesFrontendAddresses() {
        func resolves(_ guestAddress: UInt64, _ count: Int, _ alignment: UInt64 = 1) -> Bool {
            let address = guestAddress &+ SimulatedGuest.frontendShift
            return unsafe guest.memory.resolve(frontendAddress: address, count: count, alignment: alignment) != nil
        }
        #expect(resolves(0x10000, 0x4000, 4096))
        #expect(!resolves(0x10000, 0x4001))
        #expect(!resolves(0x13ff0, 0x20), "crosses into the next region")
        #expect(resolves(0x13ff0, 0x10, 16))
        #expect(!resolves(0x13ff8, 8, 16), "not aligned")
        #expect(!resolves(World.gap, 1))
        #expect(!resolves(0x20000, -1))
        #expect(!resolves(0x20000, .max))
    }

    @Test("an address that is aligned for the front-end must be aligned here, too")
    func hostAlignmentCounts() {
        // `c` begins 0x800 bytes into its file: its first byte is not on a page here, though its guest address is.
        let address = World.c.guestAddress + SimulatedGuest.frontendShift
        #expect(unsafe guest.memory.resolve(frontendAddress: address, count: 16, alignment: 0x800) != nil)
        #expect(unsafe guest.memory.resolve(frontendAddress: address, count: 16, alignment: 0x1000) == nil)
    }

    @Test("509 regions are found as a naive search finds them")
    func manyRegions() throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        var random = SeededRandom(seed: seed)
        let page = 4096
        let file = try makeMemoryFile(name: "509 regions", count: 509 * page)
        var regions: [MemoryRegion] = []
        var next: UInt64 = 0
        for index in 0..<509 {
            // Every other region follows its predecessor without a gap.
            if random.happens(1, in: 2) { next += UInt64(1 + random.below(5) * page) }
            let size = UInt64(1 + random.below(page))
            regions.append(
                MemoryRegion(guestAddress: next, size: size, frontendAddress: next, fileOffset: UInt64(index * page)))
            next += size
        }
        let memory = GuestMemory(try regions.shuffled(using: &random).map { try MappedRegion($0, fd: file) })
        var view = memory.view
        for region in regions {
            let end = region.guestAddress + region.size
            let inside = region.guestAddress + UInt64(random.below(Int(region.size)))
            for address in [region.guestAddress &- 1, region.guestAddress, inside, end - 1, end, end + 1] {
                let expected = regions.first { address >= $0.guestAddress && address - $0.guestAddress < $0.size }
                let left = view.translate(address)?.count
                #expect(left == expected.map { $0.guestAddress + $0.size - address }, "seed \(seed)")
            }
        }
    }

    @Test("a region that wraps around is our own bug: the session has refused it")
    func wrappingRegionsTrap() async {
        await #expect(processExitsWith: .failure) {
            let file = try makeMemoryFile(name: "wraps", count: 4096)
            let region = MemoryRegion(guestAddress: .max - 100, size: 4096, frontendAddress: 0, fileOffset: 0)
            _ = GuestMemory([try MappedRegion(region, fd: file)])
        }
    }
}
