import BlockTarget
import Platform
import SimulationKit
import Testing
import Uring
import Virtio

/// What O_DIRECT asks for, and guests that do not care.
@Suite("Bounce buffers and unaligned requests")
struct BounceTests {
    /// A storage that takes direct transfers only when they are aligned.
    static func storage(offset: Int = 512, memory: Int = 512, seed: UInt64 = 1) -> SimulatedStorage {
        let storage = Disks.storage(seed: seed)
        storage.directAlignment = (offset, memory)
        return storage
    }

    @Test("aligned guest memory goes straight to the storage")
    func straight() throws {
        let storage = Self.storage()
        let bench = try Disks.simulated(storage)
        #expect(try bench.perform(.read(sector: 0, count: 4096).at(residue: 512)).status == ok)
        #expect(try bench.perform(.write(sector: 0, pattern(4096)).at(residue: 0)).status == ok)
        #expect(storage.history.map(\.file) == [SimulatedStorage.directFile, SimulatedStorage.directFile])
        #expect(storage.history.map(\.kind) == [.read, .write])
    }

    @Test(
        "guest memory at any address is carried over a buffer, byte for byte",
        arguments: [1, 2, 3, 8, 511, 513, 4095], [1, 3, 8, 300])
    func anyAddress(residue: Int, sectors: Int) throws {
        let storage = Self.storage()
        let bench = try Disks.simulated(storage)
        let count = 512 * sectors
        let bytes = pattern(count, seed: residue)
        #expect(try bench.perform(.write(sector: 9, bytes).at(residue: residue)).isAnswered(ok, usedLength: 1))
        #expect(Array(storage.contents[4608..<4608 + count]) == bytes)
        let answer = try bench.perform(.read(sector: 9, count: count).at(residue: residue))
        #expect(answer == Answer(status: ok, usedLength: UInt32(count + 1), data: bytes))
        #expect(storage.history.allSatisfy { $0.file == SimulatedStorage.directFile })
        #expect(storage.history.allSatisfy { $0.length <= 131_072 })
        #expect(bench.faults == StorageFaults())
    }

    @Test("aligned addresses with odd lengths need a buffer, too")
    func oddLengths() throws {
        let storage = Self.storage()
        let bench = try Disks.simulated(storage)
        let bytes = pattern(2048, seed: 1)
        let write = GuestRequest.write(sector: 0, bytes).cut(readable: [16, 1000, 1048]).at(residue: 0)
        let read = GuestRequest.read(sector: 0, count: 2048).cut(writable: [1, 511, 1024, 512, 1]).at(residue: 0)
        #expect(try bench.perform(write).status == ok)
        #expect(try bench.perform(read).data == bytes)
        #expect(storage.history.allSatisfy { $0.file == SimulatedStorage.directFile })
    }

    @Test("requests smaller than the storage's block go through the page cache")
    func partsOfBlocks() throws {
        let storage = Self.storage(offset: 4096, memory: 512)
        let bench = try Disks.simulated(storage)
        var expected = storage.contents
        for (sector, count) in [(1, 512), (0, 512), (7, 1024), (8, 512), (3, 4096), (8, 4608)] {
            let bytes = pattern(count, seed: sector)
            expected.replaceSubrange(512 * sector..<512 * sector + count, with: bytes)
            #expect(try bench.perform(.write(sector: UInt64(sector), bytes).at(residue: 3)).status == ok)
            #expect(try bench.perform(.read(sector: UInt64(sector), count: count)).data == bytes)
        }
        #expect(storage.contents == expected)
        #expect(storage.history.allSatisfy { $0.file == SimulatedStorage.bufferedFile })
        #expect(try bench.perform(.read(sector: 8, count: 4096).at(residue: 1)).status == ok)
        #expect(storage.history.last?.file == SimulatedStorage.directFile)
    }

    @Test("more unaligned requests than buffers: the rest waits and finishes")
    func moreThanBuffers() throws {
        let storage = Self.storage()
        storage.order = .held
        let bench = try Disks.simulated(storage, queueSize: 256)
        let requests = (0..<60).map { GuestRequest.read(sector: UInt64($0), count: 512).at(residue: 1) }
        var sectors: [UInt16: Int] = [:]
        for (sector, request) in requests.enumerated() { sectors[bench.submit(request)] = sector }
        for _ in 0..<3 { bench.disk.turn() }
        #expect(storage.taken.count == 32)
        #expect(bench.disk.queues[0].hasStalled)
        while !storage.taken.isEmpty {
            storage.carryOut(at: storage.taken.count / 2)
            bench.disk.turn()
            bench.disk.turn()
        }
        let answers = try bench.answers()
        #expect(answers.count == 60)
        for (head, answer) in answers {
            let sector = try #require(sectors[head])
            #expect(answer.data == Array(storage.contents[512 * sector..<512 * sector + 512]))
        }
    }

    @Test("aligned requests do not wait for buffers")
    func alignedOvertake() throws {
        let storage = Self.storage()
        storage.order = .held
        let bench = try Disks.simulated(storage, queueSize: 256)
        for sector in 0..<40 { bench.submit(.read(sector: UInt64(sector), count: 512).at(residue: 1)) }
        let head = bench.submit(.read(sector: 100, count: 512).at(residue: 0))
        for _ in 0..<3 { bench.disk.turn() }
        #expect(storage.taken.count == 33)
        storage.carryOut(at: 32)
        bench.disk.turn()
        #expect(try bench.answers()[head]?.status == ok)
    }

    @Test("short, failing and repeated transfers over buffers lose neither bytes nor buffers", arguments: 0..<10)
    func misbehaving(round: Int) throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        var random = SeededRandom(seed: seed)
        let storage = Self.storage(offset: [512, 4096][round % 2], memory: [4, 512, 4096][round % 3], seed: seed)
        storage.order = .random
        storage.queueDepth = 16
        storage.outcome = { operation, random in
            switch random.below(12) {
            case 0: .short(1 + UInt64(random.below(Int(operation.length))))
            case 1: .short(512)
            case 2: .fails(.wouldBlock)
            case 3: .fails(.interrupted)
            case 4 where operation.isRead: .fails(.inputOutput)
            default: .complete
            }
        }
        let bench = try Disks.simulated(storage, queueSize: 256)
        var model = storage.contents
        for turn in 0..<30 {
            // Requests that are in flight together do not overlap.
            var expected: [UInt16: (range: Range<Int>, write: Bool)] = [:]
            for slot in 0..<20 {
                let start = 100 * slot + random.below(20)
                let count = 1 + random.below(60)
                let range = 512 * start..<512 * (start + count)
                let bytes = pattern(512 * count, seed: turn)
                let write = random.happens(1, in: 2)
                var request = GuestRequest.read(sector: UInt64(start), count: bytes.count)
                if write {
                    request = .write(sector: UInt64(start), bytes)
                    model.replaceSubrange(range, with: bytes)
                }
                request.residue = random.below(512)
                expected[bench.submit(request)] = (range, write)
            }
            #expect(bench.disk.settle(), "seed \(seed)")
            let answers = try bench.answers()
            #expect(answers.count == 20, "seed \(seed)")
            for (head, answer) in answers {
                let (range, write) = try #require(expected[head])
                if write || answer.status == ok { #expect(answer.status == ok, "seed \(seed)") }
                if !write, answer.status == ok { #expect(answer.data == Array(model[range]), "seed \(seed)") }
            }
            #expect(storage.contents == model, "seed \(seed)")
        }
        #expect(storage.absurdities == 0)
        #expect(storage.history.count > 600)
    }
}

/// Queues that share a backend share its buffers.
@Suite("Bounce buffers of several queues")
struct SharedBounceTests {
    /// Lays out an unaligned read of one sector in descriptors 2n and 2n + 1.
    static func layOut(_ number: Int, in guest: SimulatedGuest) {
        let place = BenchMemory.start + UInt64(number) * 1024
        guest.write(GuestRequest.read(sector: UInt64(number), count: 512).readable, at: place)
        guest.setDescriptor(
            Descriptor(address: place, length: 16, flags: 1, next: UInt16(2 * number + 1)), at: 2 * number)
        guest.setDescriptor(Descriptor(address: place + 17, length: 513, flags: 2, next: 0), at: 2 * number + 1)
    }

    @Test("a queue that always waits for buffers does not keep them from another", arguments: [0, 1])
    func fairness(busy: Int) throws {
        let storage = BounceTests.storage()
        storage.order = .held
        let guests = try (0..<2).map { _ in try SimulatedGuest(BenchMemory.placements, queueSize: 256) }
        let queues = try guests.enumerated().map { try SimulatedQueue($1, disk: Disks.description(), index: $0) }
        let access = ImageAccess(
            file: SimulatedStorage.directFile, unalignedFile: SimulatedStorage.bufferedFile, offsetAlignment: 512,
            memoryAlignment: 512)
        let disk = SimulatedDisk(try FileBackend(access, engine: SimulatedEngine(storage)), queues)
        for number in 0..<100 {
            Self.layOut(number, in: guests[busy])
            guests[busy].makeAvailable(UInt16(2 * number))
        }
        disk.turn()
        disk.turn()
        Self.layOut(0, in: guests[1 - busy])
        guests[1 - busy].makeAvailable(0)
        var completions = 0
        while completions < 200, guests[1 - busy].outstanding > 0 {
            storage.carryOut(at: 0)
            completions += 1
            disk.turn()
            // The busy guest sends again what comes back.
            while let used = try guests[busy].takeUsed() { guests[busy].makeAvailable(used.head) }
            _ = try guests[1 - busy].takeUsed()
        }
        #expect(guests[1 - busy].outstanding == 0, "it has waited for \(completions) completions")
    }
}
