import BlockTarget
import Platform
import SimulationKit
import Testing
import Uring

/// Reads and writes through a storage that misbehaves in every way the kernel may.
@Suite("Transfers")
struct TransferTests {
    let storage = Disks.storage()

    /// Faults with one kind counted.
    static func faults(_ set: (inout StorageFaults) -> Void) -> StorageFaults {
        var faults = StorageFaults()
        set(&faults)
        return faults
    }

    @Test("a short transfer goes on where it stopped, wherever that is", arguments: [false, true])
    func everySplitPoint(isWrite: Bool) throws {
        // Buffers that begin and end at odd places, so that the split falls into, between and onto them.
        let pieces = [5, 507, 1, 600, 423]
        let bench = try Disks.simulated(storage)
        for split in 1..<1536 {
            storage.outcome = { [storage] operation, _ in
                storage.history.count % 2 == 1 ? .short(UInt64(split)) : .complete
            }
            storage.clearHistory()
            if isWrite {
                let bytes = pattern(1536, seed: split)
                let request = GuestRequest.write(sector: 3, bytes).cut(readable: [16] + pieces)
                try #require(try bench.perform(request).isAnswered(ok, usedLength: 1), "split at \(split)")
                try #require(Array(storage.contents[1536..<3072]) == bytes, "split at \(split)")
            } else {
                let expected = Answer(status: ok, usedLength: 1537, data: Array(storage.contents[1536..<3072]))
                let request = GuestRequest.read(sector: 3, count: 1536).cut(writable: pieces + [1])
                try #require(try bench.perform(request) == expected, "split at \(split)")
            }
            try #require(storage.history.map(\.offset) == [1536, 1536 + UInt64(split)])
            try #require(storage.history.map(\.length) == [1536, 1536 - UInt64(split)])
            try #require(bench.faults == Self.faults { $0.shortTransfers = UInt64(split) })
        }
    }

    @Test("a storage that moves one byte at a time gets there")
    func byteByByte() throws {
        storage.outcome = { _, _ in .short(1) }
        let bench = try Disks.simulated(storage)
        let bytes = pattern(512, seed: 5)
        #expect(try bench.perform(.write(sector: 0, bytes).cut(readable: [20, 300, 208])).status == ok)
        #expect(try bench.perform(.read(sector: 0, count: 512).cut(writable: [3, 510])).data == bytes)
        #expect(bench.faults == Self.faults { $0.shortTransfers = 2 * 511 })
    }

    @Test("an unexpected end of the file is an I/O error", arguments: [false, true])
    func unexpectedEnd(isWrite: Bool) throws {
        storage.outcome = { _, _ in .endOfFile }
        let bench = try Disks.simulated(storage)
        let request = isWrite ? GuestRequest.write(sector: 0, pattern(512)) : .read(sector: 0, count: 512)
        #expect(try bench.perform(request).isAnswered(ioError, usedLength: 1))
        #expect(bench.faults == Self.faults { $0.unexpectedEnds = 1 })
        #expect(storage.history.count == 1)
    }

    @Test("an image that has become shorter than the disk is read as far as it goes, then fails")
    func shorterImage() throws {
        let storage = SimulatedStorage(bytes: pattern(1000))
        let bench = try Disks.simulated(storage)
        let answer = try bench.perform(.read(sector: 0, count: 1024))
        #expect(answer.isAnswered(ioError, usedLength: 1))
        #expect(bench.faults == Self.faults { ($0.shortTransfers, $0.unexpectedEnds) = (1, 1) })
        #expect(try bench.perform(.read(sector: 1000, count: 512)).status == ioError)
    }

    @Test("EAGAIN and EINTR are tried again, 64 times and no more", arguments: [Errno.wouldBlock, .interrupted])
    func tryAgain(error: Errno) throws {
        for (failures, status) in [(1, ok), (64, ok), (65, ioError)] {
            for request in [
                GuestRequest.read(sector: 0, count: 512), .write(sector: 0, pattern(512)), .flush,
                .discard(SectorRange(0, 1)), .writeZeroes(SectorRange(0, 1)),
            ] {
                storage.clearHistory()
                storage.outcome = { [storage] _, _ in storage.history.count <= failures ? .fails(error) : .complete }
                let bench = try Disks.simulated(storage)
                #expect(try bench.perform(request).status == status)
                let expected = Self.faults {
                    ($0.retries, $0.errors) = (UInt64(min(failures, 64)), status == ok ? 0 : 1)
                }
                #expect(bench.faults == expected)
                #expect(storage.history.count == min(failures, 64) + 1)
            }
        }
    }

    @Test("no room on the host is counted apart", arguments: [Errno.noSpace, Errno(rawValue: 122)])
    func noSpace(error: Errno) throws {
        storage.outcome = { _, _ in .fails(error) }
        let bench = try Disks.simulated(storage)
        #expect(try bench.perform(.write(sector: 0, pattern(512))).isAnswered(ioError, usedLength: 1))
        #expect(bench.faults == Self.faults { $0.noSpace = 1 })
    }

    @Test("every other error is an I/O error", arguments: [5, 9, 14, 22, 27, 38, 95, 121, 125, 4095] as [Int32])
    func otherErrors(number: Int32) throws {
        storage.outcome = { _, _ in .fails(Errno(rawValue: number)) }
        let bench = try Disks.simulated(storage)
        for request in [GuestRequest.read(sector: 0, count: 512), .write(sector: 0, pattern(512)), .flush] {
            #expect(try bench.perform(request).isAnswered(ioError, usedLength: 1))
        }
        #expect(bench.faults == Self.faults { $0.errors = 3 })
    }

    @Test("an engine without room stalls requests, and they are started in the order they came", arguments: [1, 2, 7])
    func fullEngine(depth: Int) throws {
        storage.queueDepth = depth
        storage.takenPerSubmit = 0
        let bench = try Disks.simulated(storage)
        let heads = (0..<40).map { bench.submit(.read(sector: UInt64($0), count: 512)) }
        for _ in 0..<10 { bench.disk.turn() }
        #expect(bench.disk.queues[0].hasStalled)
        #expect(bench.outstanding == 40)
        storage.takenPerSubmit = 1
        #expect(bench.disk.settle())
        let answers = try bench.answers()
        #expect(heads.allSatisfy { answers[$0]?.status == ok })
        #expect(storage.history.map(\.offset) == (0..<40).map { UInt64(512 * $0) })
    }

    @Test("a request that finds no room for its second part waits like any other")
    func stallsHalfway() throws {
        storage.outcome = { _, _ in .short(100) }
        storage.queueDepth = 1
        let bench = try Disks.simulated(storage)
        let heads = (0..<10).map { bench.submit(.read(sector: UInt64($0), count: 512)) }
        #expect(bench.disk.settle())
        let answers = try bench.answers()
        for (sector, head) in heads.enumerated() {
            #expect(answers[head]?.data == Array(storage.contents[512 * sector..<512 * sector + 512]))
        }
    }

    @Test("refusals now and then lose nothing", arguments: 0..<10)
    func refusals(round: Int) throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        var random = SeededRandom(seed: seed)
        let storage = Disks.storage(seed: seed)
        storage.order = .random
        storage.queueDepth = 3
        let bench = try Disks.simulated(storage)
        var heads: Set<UInt16> = []
        for index in 0..<40 {
            storage.refusals = random.below(4)
            storage.takenPerSubmit = random.below(4)
            heads.insert(bench.submit(.write(sector: UInt64(index), pattern(512, seed: index))))
            if random.happens(1, in: 3) { bench.disk.turn() }
        }
        (storage.refusals, storage.takenPerSubmit) = (0, .max)
        #expect(bench.disk.settle())
        let answers = try bench.answers()
        #expect(Set(answers.keys) == heads, "seed \(seed)")
        #expect(answers.values.allSatisfy { $0.status == ok }, "seed \(seed)")
        for index in 0..<40 {
            #expect(
                Array(storage.contents[512 * index..<512 * index + 512]) == pattern(512, seed: index), "seed \(seed)")
        }
    }
}
