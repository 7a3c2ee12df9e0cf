import FrontendKit
import Testing
import Virtio

@Suite struct GuestMemoryTests {
    static let placements: [FrontendKit.GuestMemory.Placement] = [
        .init(guestAddress: 0x1000, size: 0x7620), .init(guestAddress: 0x8620, size: 0x5ffe, fileOffset: 4096),
        .init(guestAddress: 1 << 40, size: 4096),
    ]

    @Test func bytesMayCrossFromOneRegionIntoTheNext() throws {
        let memory = try FrontendKit.GuestMemory(Self.placements)
        let bytes = (0..<3000).map { UInt8(truncatingIfNeeded: $0) }
        memory.write(bytes, at: 0x8620 - 1000)
        #expect(memory.read(3000, at: 0x8620 - 1000) == bytes)
        #expect(memory.read(1000, at: 0x8620 - 1000) == Array(bytes.prefix(1000)))
        memory.fill(7, count: 2, at: 0x861f)
        #expect(memory.read(4, at: 0x861e) == [bytes[998], 7, 7, bytes[1001]])
    }

    @Test func frontendAddressesAreOfTheMappingOrOfTheGuest() throws {
        let guest = try FrontendKit.GuestMemory(Self.placements, addressing: .guest)
        #expect(guest.frontendAddress(of: 0x8621) == 0x8621)
        let mapped = try FrontendKit.GuestMemory(Self.placements)
        let region = mapped.regions[1].description
        #expect(mapped.frontendAddress(of: 0x8621) == region.frontendAddress + 1)
        #expect(region.frontendAddress != region.guestAddress)
        #expect(region.fileOffset == 4096)
    }

    @Test func theAllocatorAlignsAndDoesNotOverlap() {
        var allocator = GuestAllocator(10..<1000)
        #expect(allocator.allocate(3, alignment: 1) == 10)
        #expect(allocator.allocate(5) == 64)
        #expect(allocator.allocate(1, alignment: 256) == 256)
    }
}
