import BlockTarget
import Platform
import SimulationKit
import Telemetry
import Testing
import Uring
import Virtio

/// A queue between its ring and its backend.
@Suite("Block queue")
struct QueueTests {
    let storage = Disks.storage()

    @Test("requests are counted by kind, and bytes when they succeed")
    func counters() throws {
        let bench = try Disks.simulated(storage)
        _ = try bench.perform(.read(sector: 0, count: 1024))
        _ = try bench.perform(.read(sector: 0, count: 0))
        _ = try bench.perform(.write(sector: 0, pattern(512)))
        _ = try bench.perform(.write(sector: 0, pattern(1536)))
        _ = try bench.perform(.flush)
        _ = try bench.perform(.identify())
        _ = try bench.perform(.discard(SectorRange(0, 1)))
        _ = try bench.perform(.writeZeroes(SectorRange(0, 1), SectorRange(8, 1)))
        storage.outcome = { _, _ in .fails(.inputOutput) }
        _ = try bench.perform(.read(sector: 0, count: 512))
        _ = try bench.perform(.write(sector: 0, pattern(512)))
        _ = try bench.perform(.flush)
        _ = try bench.perform(GuestRequest(type: 77))
        _ = try bench.perform(.read(sector: .max, count: 512))
        let expected: [RequestKind: (UInt64, UInt64, UInt64)] = [
            .read: (3, 1024, 1), .write: (3, 2048, 1), .flush: (2, 0, 1), .identify: (1, 0, 0), .discard: (1, 512, 0),
            .writeZeroes: (1, 1024, 0), .writeZeroesUnmapping: (0, 0, 0), .refused: (2, 0, 2),
        ]
        for (kind, counts) in expected {
            let found = bench.counts[kind]
            #expect((found.operations, found.bytes, found.errors) == counts, "\(kind)")
        }
        #expect(bench.counts.malformed == 1)
        #expect(bench.counts.operations == 13)
        var faults = StorageFaults()
        faults.errors = 3
        #expect(bench.faults == faults)
    }

    @Test("counts of queues add up")
    func countersAdd() throws {
        let bench = try Disks.simulated(storage)
        _ = try bench.perform(.read(sector: 0, count: 512))
        _ = try bench.perform(.write(sector: 9, pattern(512)))
        var sum = bench.counts
        sum.add(bench.counts)
        #expect(sum[.read].operations == 2 && sum[.read].bytes == 1024)
        #expect(sum[.write].operations == 2 && sum[.write].bytes == 1024)
        sum.subtract(bench.counts)
        #expect(sum == bench.counts)
        var faults = StorageFaults()
        (faults.noSpace, faults.retries, faults.shortTransfers, faults.unexpectedEnds, faults.errors) = (1, 2, 3, 4, 5)
        var twice = faults
        twice.add(faults)
        #expect(twice != faults)
        twice.subtract(faults)
        #expect(twice == faults)
    }

    @Test("many requests in flight are answered once each, in whatever order they end", arguments: 0..<8)
    func manyInFlight(round: Int) throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        var random = SeededRandom(seed: seed)
        let storage = Disks.storage(seed: seed)
        storage.order = .held
        let bench = try Disks.simulated(storage, queueSize: 256)
        var expected: [UInt16: [UInt8]] = [:]
        for _ in 0..<64 {
            let sector = random.below(2000)
            let head = bench.submit(.read(sector: UInt64(sector), count: 1024))
            expected[head] = Array(storage.contents[sector * 512..<sector * 512 + 1024])
        }
        #expect(bench.disk.settle())
        #expect(bench.outstanding == 64)
        #expect(try bench.answers().isEmpty)
        while !expected.isEmpty {
            for _ in 0..<min(expected.count, 1 + random.below(9)) {
                storage.carryOut(at: random.below(storage.taken.count))
            }
            #expect(bench.disk.settle())
            for (head, answer) in try bench.answers() {
                #expect(
                    answer == Answer(status: ok, usedLength: 1025, data: try #require(expected[head])), "seed \(seed)")
                expected[head] = nil
            }
        }
        #expect(bench.outstanding == 0)
        #expect(bench.guest.outstanding == 0)
        #expect(storage.taken.isEmpty)
    }

    @Test("at most 64 requests are taken in one go")
    func batches() throws {
        storage.order = .held
        let bench = try Disks.simulated(storage, queueSize: 256)
        for _ in 0..<80 { bench.submit(.flush) }
        bench.disk.turn()
        #expect(bench.outstanding == 64)
        bench.disk.turn()
        #expect(bench.outstanding == 80)
        #expect(bench.disk.queues[0].nextAvailable == 80)
    }

    @Test("a head that is in flight already comes back at once with length 0; the first is not disturbed")
    func duplicateHead() throws {
        storage.order = .held
        let bench = try Disks.simulated(storage)
        let head = bench.submit(.read(sector: 4, count: 512))
        #expect(bench.disk.settle())
        bench.guest.makeAvailable(head)
        bench.guest.makeAvailable(head)
        #expect(bench.disk.settle())
        #expect(try bench.guest.takeUsed() == UsedElement(head: head, length: 0))
        #expect(try bench.guest.takeUsed() == UsedElement(head: head, length: 0))
        #expect(try bench.guest.takeUsed() == nil)
        #expect(bench.outstanding == 1)
        #expect(bench.counts.malformed == 2)
        storage.carryOut(at: 0)
        #expect(bench.disk.settle())
        let answer = try #require(try bench.answers()[head])
        #expect(answer == Answer(status: ok, usedLength: 513, data: Array(storage.contents[2048..<2560])))
    }

    @Test("a head made available twice in one go is served once")
    func duplicateHeadInOneBatch() throws {
        storage.order = .held
        let bench = try Disks.simulated(storage)
        let head = bench.submit(.flush)
        bench.guest.makeAvailable(head)
        #expect(bench.disk.settle())
        #expect(storage.taken.count == 1)
        #expect(try bench.guest.takeUsed() == UsedElement(head: head, length: 0))
        #expect(bench.outstanding == 1)
    }

    @Test(
        "a head that is no descriptor comes back as it is, with length 0",
        arguments: [128, 129, 0x7fff, 0xffff] as [UInt16])
    func headOutOfRange(head: UInt16) throws {
        let bench = try Disks.simulated(storage)
        bench.guest.makeAvailable(head)
        #expect(bench.disk.settle())
        #expect(try bench.guest.takeUsed() == UsedElement(head: head, length: 0))
        #expect(try bench.perform(.flush).status == ok)
        #expect(bench.counts.malformed == 1)
    }

    @Test("a nonsensical available index breaks the queue: what is in flight ends, nothing more is taken")
    func brokenQueue() throws {
        storage.order = .held
        let bench = try Disks.simulated(storage)
        let head = bench.submit(.read(sector: 0, count: 512))
        #expect(bench.disk.settle())
        bench.guest.claimAvailable(bench.guest.availableIndex &+ 129)
        #expect(bench.disk.settle())
        #expect(bench.isBroken)
        #expect(bench.outstanding == 1)
        storage.carryOut(at: 0)
        #expect(bench.disk.settle())
        #expect(try bench.answers()[head]?.status == ok)
        bench.submit(.flush)
        #expect(bench.disk.settle())
        #expect(try bench.answers().isEmpty)
        #expect(bench.counts[.flush].operations == 0)
    }

    @Test("a broken queue does not disturb the others")
    func othersGoOn() throws {
        let description = Disks.description()
        let guests = try (0..<2).map { _ in try SimulatedGuest(BenchMemory.placements, queueSize: 8) }
        let queues = try guests.enumerated().map { try SimulatedQueue($1, disk: description, index: $0) }
        let access = ImageAccess(file: SimulatedStorage.directFile, unalignedFile: SimulatedStorage.bufferedFile)
        let disk = SimulatedDisk(try FileBackend(access, engine: SimulatedEngine(storage)), queues)
        guests[0].claimAvailable(9)
        guests[1].setDescriptor(Descriptor(address: BenchMemory.start, length: 16, flags: 1, next: 1), at: 0)
        guests[1].setDescriptor(Descriptor(address: BenchMemory.start + 64, length: 513, flags: 2, next: 0), at: 1)
        guests[1].makeAvailable(0)
        #expect(disk.settle())
        #expect(queues[0].isBroken)
        #expect(!queues[1].isBroken)
        #expect(try guests[0].takeUsed() == nil)
        #expect(try guests[1].takeUsed() == UsedElement(head: 0, length: 513))
        #expect(guests[1].read(513, at: BenchMemory.start + 64) == Array(storage.contents[0..<512]) + [ok])
    }

    @Test("a completion that names no request is dropped and counted")
    func staleCompletions() throws {
        storage.order = .held
        let bench = try Disks.simulated(storage)
        let head = bench.submit(.read(sector: 0, count: 512))
        #expect(bench.disk.settle())
        let token = RequestToken(rawValue: try #require(storage.taken.first).token)
        #expect(token.head == head && token.queue == 0)
        let others = [
            token.rawValue &+ 1 << 32,  // the next request on this head
            token.rawValue &- 1 << 32,  // the one before
            token.rawValue &+ 1,  // a head that is idle
            RequestToken(sequence: 1, queue: 0, head: 128).rawValue,  // no head at all
            RequestToken(sequence: 1, queue: 0, head: .max).rawValue,
        ]
        for other in others { storage.deliver(token: other, result: 512) }
        #expect(bench.disk.settle())
        #expect(bench.counts.staleCompletions == UInt64(others.count))
        #expect(try bench.answers().isEmpty)
        storage.carryOut(at: 0)
        #expect(bench.disk.settle())
        #expect(try bench.answers()[head]?.status == ok)
        storage.deliver(token: token.rawValue, result: 512)
        #expect(bench.disk.settle())
        #expect(bench.counts.staleCompletions == UInt64(others.count) + 1, "a request completes once")
    }

    /// A worker before may have left a completion in the queue: of an earlier request in the same slot.
    @Test func `a request that waits for room is not finished by the completion of an earlier one`() throws {
        let bench = try Disks.simulated(storage)
        _ = try bench.perform(.write(sector: 0, pattern(512)))
        let earlier = try #require(storage.history.last)
        storage.queueDepth = 0
        let head = bench.submit(.write(sector: 0, pattern(512, seed: 2)))
        bench.disk.turn()
        #expect(bench.disk.queues[0].hasStalled)
        #expect(RequestToken(rawValue: earlier.token).head == head)
        storage.deliver(token: earlier.token, result: 512)
        bench.disk.turn()
        #expect(bench.counts.staleCompletions == 1)
        #expect(try bench.answers().isEmpty)
        storage.queueDepth = 128
        #expect(bench.disk.settle())
        #expect(try bench.answers()[head]?.status == ok)
        #expect(storage.contents[..<512] == pattern(512, seed: 2)[...])
    }

    @Test("each request on a head has a token of its own")
    func tokensDiffer() throws {
        let bench = try Disks.simulated(storage)
        for _ in 0..<10 { _ = try bench.perform(.flush) }
        #expect(Set(storage.history.map(\.token)).count == 10)
    }

    @Test("the guest is interrupted once for what is shown together, and not when it does not ask")
    func interrupts() throws {
        let call = try EventFD()
        let features = Disks.description().features & ~(1 << 29)
        let disk = try MemoryDisk(bytes: Disks.bytes)
        let bench = try Bench(MemoryBackend(disk), Disks.description(), features: features, call: call.fd.number)
        for _ in 0..<5 { bench.submit(.flush) }
        #expect(bench.disk.settle())
        #expect(bench.counts.interrupts == 1)
        let rung = call.clear()
        #expect(rung)
        bench.guest.setAvailableFlags(1)
        bench.submit(.flush)
        #expect(bench.disk.settle())
        #expect(bench.counts.interrupts == 1)
        let rungAgain = call.clear()
        #expect(!rungAgain)
        #expect(try bench.answers().count == 6)
    }

    @Test("with the write cache off, a write is durable before it is answered; the driver may change its mind")
    func writeCache() throws {
        let bench = try Disks.simulated(storage, writesThrough: true)
        _ = try bench.perform(.write(sector: 0, pattern(512)))
        _ = try bench.perform(.read(sector: 0, count: 512))
        bench.disk.queues[0].setWritesThrough(false)
        _ = try bench.perform(.write(sector: 0, pattern(512)))
        #expect(storage.history.map(\.isDurable) == [true, false, false])
        #expect(storage.history.allSatisfy { $0.isTransfer })
    }

    @Test("a write in flight when the cache is turned off is made durable before it is answered")
    func writeCacheOffInFlight() throws {
        storage.order = .held
        let bench = try Disks.simulated(storage)
        let head = bench.submit(.write(sector: 0, pattern(512)))
        let reading = bench.submit(.read(sector: 4, count: 512))
        #expect(bench.disk.settle())
        bench.disk.queues[0].setWritesThrough(true)
        storage.carryOut(at: 0)
        storage.carryOut(at: 0)
        #expect(bench.disk.settle())
        let early = try bench.answers()
        #expect(early[head] == nil)
        #expect(early[reading]?.status == ok)
        storage.carryOut(at: 0)
        #expect(bench.disk.settle())
        #expect(try bench.answers()[head]?.status == ok)
        #expect(storage.history.map(\.isTransfer) == [true, true, false])
    }
}
