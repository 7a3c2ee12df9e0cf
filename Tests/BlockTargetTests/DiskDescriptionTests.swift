import BlockTarget
import Testing

/// What a driver reads about a disk: VIRTIO 1.2, sections 5.2.3 and 5.2.4.
@Suite("Disk description")
struct DiskDescriptionTests {
    /// A number of the configuration space.
    static func number(_ bytes: [UInt8], at offset: Int, count: Int) -> UInt64 {
        bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    static func hasFeature(_ disk: DiskDescription, _ bit: UInt64) -> Bool { disk.features & (1 << bit) != 0 }

    @Test("the configuration space has every field in its place")
    func configuration() {
        var disk = DiskDescription(
            sectors: 0x0102_0304_0506_0708, logicalBlockSize: 512, physicalBlockSize: 4096, queueCount: 5,
            maximumQueueSize: 256)
        disk.supportsDiscard = true
        disk.supportsWriteZeroes = true
        let bytes = disk.configuration(writeback: true)
        #expect(bytes.count == 60)
        let fields: [(offset: Int, count: Int, value: UInt64)] = [
            (0, 8, 0x0102_0304_0506_0708),  // capacity
            (8, 4, 1 << 20), (12, 4, 126),  // size_max, seg_max
            (16, 4, 0), (20, 4, 512),  // geometry, blk_size
            (24, 1, 3), (25, 1, 0), (26, 2, 8), (28, 4, 0),  // topology: 2^3 blocks, aligned, 8 at least
            (32, 1, 1), (33, 1, 0), (34, 2, 5),  // writeback, unused, num_queues
            (36, 4, 1 << 22), (40, 4, 32), (44, 4, 8),  // discard
            (48, 4, 1 << 16), (52, 4, 32), (56, 1, 1), (57, 3, 0),  // write zeroes
        ]
        for field in fields {
            #expect(Self.number(bytes, at: field.offset, count: field.count) == field.value, "offset \(field.offset)")
        }
        #expect(DiskDescription.writebackOffset == 32)
        #expect(disk.configuration(writeback: false)[32] == 0)
    }

    @Test(
        "a chain of seg_max segments fits into the ring",
        arguments: [(1, 1), (2, 1), (3, 1), (4, 2), (128, 126), (1024, 126)])
    func segmentsFit(size: Int, segments: UInt64) {
        let disk = DiskDescription(sectors: 8, maximumQueueSize: size)
        #expect(Self.number(disk.configuration(writeback: true), at: 12, count: 4) == segments)
    }

    @Test("fields of features that are not offered are zero")
    func notOffered() {
        let bytes = DiskDescription(sectors: 8).configuration(writeback: true)
        #expect(bytes[36...].allSatisfy { $0 == 0 })
        let readOnly = DiskDescription(sectors: 8, isReadOnly: true, supportsDiscard: true, supportsWriteZeroes: true)
        #expect(readOnly.configuration(writeback: true)[36...].allSatisfy { $0 == 0 })
    }

    @Test("a disk offers what it can do, and a read-only one nothing that changes it")
    func features() {
        let plain = DiskDescription(sectors: 8)
        for bit in [1, 2, 6, 9, 10, 11, 12, 28, 29, 32] as [UInt64] {
            #expect(Self.hasFeature(plain, bit), "bit \(bit)")
        }
        for bit in [4, 5, 13, 14, 33, 34] as [UInt64] { #expect(!Self.hasFeature(plain, bit), "bit \(bit)") }
        let all = DiskDescription(sectors: 8, supportsDiscard: true, supportsWriteZeroes: true)
        #expect(Self.hasFeature(all, 13) && Self.hasFeature(all, 14) && !Self.hasFeature(all, 5))
        let readOnly = DiskDescription(sectors: 8, isReadOnly: true, supportsDiscard: true, supportsWriteZeroes: true)
        #expect(Self.hasFeature(readOnly, 5) && !Self.hasFeature(readOnly, 13) && !Self.hasFeature(readOnly, 14))
    }
}
