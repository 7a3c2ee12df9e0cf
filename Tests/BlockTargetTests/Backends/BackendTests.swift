import BlockTarget
import Platform
import SimulationKit
import Telemetry
import TestSupport
import Testing
import Uring

/// One test body for every backend: a random mix of requests against a model of the disk.
@Suite("Every backend")
struct BackendTests {
    /// Runs a mix of requests, some of them together, and compares each byte read, and the whole disk in the end.
    ///
    /// - Parameter discardKeeps: discarded sectors may keep their content.
    static func exercise<Backend: StorageBackend & ~Copyable>(
        _ bench: Bench<Backend>, sectors: Int, seed: UInt64, rounds: Int = 40
    ) throws {
        var random = SeededRandom(seed: seed)
        var model = try read(bench, sectors: sectors)
        for round in 0..<rounds {
            var expected: [UInt16: [UInt8]] = [:]
            // Each request has a lane of sectors of its own.
            let lane = sectors / 12
            for index in 0..<12 {
                let first = lane * index + random.below(lane / 2)
                let count = 1 + random.below(lane / 2)
                let range = 512 * first..<512 * (first + count)
                var request: GuestRequest
                switch random.below(8) {
                case 0...2:
                    request = .read(sector: UInt64(first), count: range.count).cut(
                        writable: random.cut(range.count + 1))
                case 3...5:
                    let bytes = random.bytes(range.count)
                    request = .write(sector: UInt64(first), bytes).cut(readable: random.cut(range.count + 16))
                    model.replaceSubrange(range, with: bytes)
                case 6:
                    let flags = UInt32(random.below(2))
                    request = .writeZeroes(SectorRange(UInt64(first), UInt32(count), flags: flags))
                    model.replaceSubrange(range, with: repeatElement(0, count: range.count))
                default:
                    request = .flush
                }
                request.isIndirect = random.happens(1, in: 2)
                request.residue = random.happens(1, in: 2) ? 512 * random.below(8) : nil
                let isRead = request.writableCount > 1
                expected[bench.submit(request)] = isRead ? Array(model[range]) : []
            }
            #expect(bench.disk.settle())
            let answers = try bench.answers()
            #expect(answers.count == 12, "seed \(seed), round \(round)")
            for (head, answer) in answers {
                #expect(answer.status == ok, "seed \(seed), round \(round)")
                #expect(answer.data == expected[head], "seed \(seed), round \(round)")
            }
        }
        #expect(try read(bench, sectors: sectors) == model, "seed \(seed)")
        #expect(bench.counts.errors == 0)
        #expect(bench.faults == StorageFaults())
    }

    /// The whole disk.
    static func read<Backend: StorageBackend & ~Copyable>(_ bench: Bench<Backend>, sectors: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        for sector in stride(from: 0, to: sectors, by: 1024) {
            bytes += try bench.perform(.read(sector: UInt64(sector), count: 512 * min(1024, sectors - sector))).data
        }
        return bytes
    }

    let seed = UInt64.random(in: 1...UInt64.max)

    @Test("memory")
    func memory() throws {
        try Self.exercise(try Disks.memory(), sectors: Int(Disks.sectors), seed: seed)
    }

    @Test("a simulated storage, in every order", arguments: [(1, 1), (512, 4), (512, 512), (4096, 4096)])
    func simulated(alignment: (Int, Int)) throws {
        for order in [SimulatedOrder.oldestFirst, .newestFirst, .random] {
            let storage = BounceTests.storage(offset: alignment.0, memory: alignment.1, seed: seed)
            storage.order = order
            try Self.exercise(try Disks.simulated(storage), sectors: Int(Disks.sectors), seed: seed)
            #expect(storage.absurdities == 0)
        }
    }

    @Test("a real file through a real ring", arguments: CacheMode.allCases)
    func file(cache: CacheMode) throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("image")
        try TestFile.create(path, count: Disks.bytes)
        try TestFile.write(pattern(65536), to: path, at: 300_000)
        let bench = try Disks.file(path, cache: cache)
        try Self.exercise(bench, sectors: Int(Disks.sectors), seed: seed)
        let whole = try Self.read(bench, sectors: Int(Disks.sectors))
        #expect(try TestFile.read(path, count: Disks.bytes) == whole)
        #expect(try bench.perform(.discard(SectorRange(0, 512))).status == ok)
        #expect(try TestFile.read(path, count: 262_144).allSatisfy { $0 == 0 }, "a hole reads as zeroes")
    }

    @Test("an image that shrinks under a real disk gives I/O errors")
    func shrinkingFile() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("image")
        try TestFile.create(path, count: 1 << 20)
        let bench = try Disks.file(path, cache: .buffered)
        try TestFile.create(path, count: 4096 + 100)
        #expect(try bench.perform(.read(sector: 0, count: 4096)).status == ok)
        #expect(try bench.perform(.read(sector: 8, count: 512)).isAnswered(ioError, usedLength: 1))
        #expect(try bench.perform(.read(sector: 100, count: 512)).isAnswered(ioError, usedLength: 1))
        #expect(bench.faults == TransferTests.faults { ($0.shortTransfers, $0.unexpectedEnds) = (1, 2) })
    }

    @Test("memory: ranges are zeroed at any place, whole pages and parts")
    func memoryRanges() throws {
        let bench = try Disks.memory()
        for (sector, count) in [(0, 1), (1, 7), (7, 2), (8, 8), (9, 30), (2048, 64), (0, 2112)] as [(UInt64, UInt32)] {
            for sectors in stride(from: 0, to: 2112, by: 704) {
                #expect(try bench.perform(.write(sector: UInt64(sectors), pattern(704 * 512, seed: 7))).status == ok)
            }
            var model = try Self.read(bench, sectors: 2112)
            #expect(try bench.perform(.discard(SectorRange(sector, count))).status == ok)
            model.replaceSubrange(
                Int(sector) * 512..<(Int(sector) + Int(count)) * 512, with: repeatElement(0, count: Int(count) * 512))
            #expect(try Self.read(bench, sectors: 2112) == model)
        }
    }

    @Test("null answers everything at once and touches nothing but the status")
    func null() throws {
        let bench = try Bench(NullBackend(), Disks.description())
        #expect(try bench.perform(.write(sector: 0, pattern(512))).isAnswered(ok, usedLength: 1))
        let read = try bench.perform(.read(sector: 0, count: 512))
        #expect(read.isAnswered(ok, usedLength: 513))
        #expect(read.data.allSatisfy { $0 == 0xff })
        #expect(try bench.perform(.flush).status == ok)
        #expect(try bench.perform(.discard(SectorRange(0, 1))).status == ok)
        #expect(try bench.perform(.identify()).data.prefix(15) == Array("a serial number".utf8)[...])
        #expect(try bench.perform(.read(sector: Disks.sectors, count: 512)).status == ioError)
    }
}
