import SimulationKit
import Testing

/// A device takes any layout of a request: where descriptors begin and end means nothing (VIRTIO 1.2, 2.7.4.1 and
/// 5.2.6).
@Suite("Layouts of a request")
struct LayoutTests {
    @Test("the header may be split into 1 to 16 pieces", arguments: 1...16, [false, true])
    func splitHeader(pieces: Int, indirect: Bool) throws {
        let bench = try Disks.memory()
        let bytes = pattern(1024)
        let cut = (0..<pieces).map { 16 * ($0 + 1) / pieces - 16 * $0 / pieces }
        var write = GuestRequest.write(sector: 5, bytes).cut(readable: cut + [1024])
        var read = GuestRequest.read(sector: 5, count: 1024).cut(readable: cut)
        if indirect { (write, read) = (write.indirect, read.indirect) }
        #expect(try bench.perform(write).isAnswered(ok, usedLength: 1))
        #expect(try bench.perform(read) == Answer(status: ok, usedLength: 1025, data: bytes))
    }

    @Test("header and data of a write may be cut anywhere", arguments: 1...40)
    func writeCutAnywhere(first: Int) throws {
        let bench = try Disks.memory()
        let bytes = pattern(512)
        let write = GuestRequest.write(sector: 0, bytes)
        for second in [1, 2, 7, 16, 511 - first] where second > 0 && first + second < 528 {
            let request = write.cut(readable: [first, second, 528 - first - second])
            #expect(try bench.perform(request).isAnswered(ok, usedLength: 1))
            #expect(try bench.perform(.read(sector: 0, count: 512)).data == bytes)
            #expect(try bench.perform(.writeZeroes(SectorRange(0, 1))).status == ok)
        }
    }

    @Test(
        "data read and status may be cut anywhere",
        arguments: [
            [1025], [1, 1024], [1024, 1], [511, 1, 512, 1], [512, 513], [1023, 2], [3, 5, 7, 1009, 1],
            [1, 1, 1, 1, 1020, 1], [1000, 20, 4, 1],
        ])
    func readCutAnywhere(pieces: [Int]) throws {
        let bench = try Disks.memory()
        let bytes = pattern(1024, seed: 3)
        #expect(try bench.perform(.write(sector: 7, bytes)).status == ok)
        for request in [GuestRequest.read(sector: 7, count: 1024).cut(writable: pieces)] {
            let expected = Answer(status: ok, usedLength: 1025, data: bytes)
            #expect(try bench.perform(request) == expected)
            #expect(try bench.perform(request.indirect) == expected)
        }
    }

    @Test("empty descriptors anywhere change nothing", arguments: [false, true])
    func emptyDescriptors(indirect: Bool) throws {
        let bench = try Disks.memory()
        let bytes = pattern(512)
        let write = GuestRequest.write(sector: 1, bytes).cut(readable: [0, 16, 0, 0, 512, 0], writable: [0, 1])
        let read = GuestRequest.read(sector: 1, count: 512).cut(readable: [0, 8, 0, 8], writable: [0, 512, 0, 1, 0])
        #expect(try bench.perform(indirect ? write.indirect : write).isAnswered(ok, usedLength: 1))
        let answer = try bench.perform(indirect ? read.indirect : read)
        #expect(answer == Answer(status: ok, usedLength: 513, data: bytes))
    }

    @Test("every byte may have a descriptor of its own")
    func bytewise() throws {
        let bench = try Disks.memory(queueSize: 1024)
        let bytes = pattern(512, seed: 9)
        let write = GuestRequest.write(sector: 2, bytes).cut(readable: Array(repeating: 1, count: 528))
        let read = GuestRequest.read(sector: 2, count: 512).cut(writable: Array(repeating: 1, count: 513))
        #expect(try bench.perform(write).isAnswered(ok, usedLength: 1))
        #expect(try bench.perform(read).data == bytes)
        #expect(try bench.perform(.writeZeroes(SectorRange(2, 1))).status == ok)
        #expect(try bench.perform(write.indirect).isAnswered(ok, usedLength: 1))
        #expect(try bench.perform(read.indirect).data == bytes)
    }

    @Test("random cuts, on a storage that takes its time", arguments: 0..<20)
    func randomCuts(round: UInt64) throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        var random = SeededRandom(seed: seed)
        let storage = Disks.storage(seed: seed)
        storage.order = .random
        let bench = try Disks.simulated(storage)
        var expected = storage.contents
        for _ in 0..<20 {
            let sector = random.below(2000)
            let count = 512 * (1 + random.below(24))
            let bytes = random.bytes(count)
            let isIndirect = random.happens(1, in: 2)
            var write = GuestRequest.write(sector: UInt64(sector), bytes).cut(readable: random.cut(count + 16))
            var read = GuestRequest.read(sector: UInt64(sector), count: count).cut(writable: random.cut(count + 1))
            (write.isIndirect, read.isIndirect) = (isIndirect, isIndirect)
            #expect(try bench.perform(write).isAnswered(ok, usedLength: 1), "seed \(seed)")
            expected.replaceSubrange(sector * 512..<sector * 512 + count, with: bytes)
            #expect(try bench.perform(read).data == bytes, "seed \(seed)")
        }
        #expect(storage.contents == expected, "seed \(seed)")
    }
}

extension SeededRandom {
    /// Up to twelve lengths whose sum is `count`.
    mutating func cut(_ count: Int) -> [Int] {
        let places = (0..<below(12)).map { _ in below(count + 1) }.sorted()
        return zip([0] + places, places + [count]).map { $1 - $0 }
    }
}
