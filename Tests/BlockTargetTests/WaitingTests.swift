import BlockTarget
import Glibc
import Platform
import SimulationKit
import Telemetry
import TestSupport
import Testing
import Uring

/// Requests that wait: for room on the host, and for a limit.
@Suite struct WaitingTests {
    let storage = Disks.storage()
    let statistics: DeviceStatistics

    init() throws { statistics = try DeviceStatistics(queueCount: 1, queueSize: 128) }

    private func bench(
        holds: Bool = true, writesThrough: Bool = false
    ) throws -> Bench<FileBackend<SimulatedEngine>> {
        statistics.setPolicy(DevicePolicy(holdsForRoom: holds))
        return try Disks.simulated(storage, writesThrough: writesThrough, statistics: statistics)
    }

    /// Whatever takes room finds none, or the error that is given.
    private func fill(_ error: Errno = .noSpace) {
        storage.outcome = { operation, _ in
            operation.isWrite || operation.kind == .allocate ? .fails(error) : .complete
        }
    }

    private func makeRoom() { storage.outcome = { _, _ in .complete } }

    private var held: UInt64 { statistics.read(at: monotonicNanoseconds()).held }

    @Test(arguments: [Errno.noSpace, Errno(rawValue: EDQUOT)])
    func `reported, a host without room is an I/O error`(error: Errno) throws {
        let bench = try bench(holds: false)
        fill(error)
        #expect(try bench.perform(.write(sector: 0, pattern(512))).status == ioError)
        #expect(bench.faults.noSpace == 1)
        #expect(held == 0)
    }

    @Test(arguments: [Errno.noSpace, Errno(rawValue: EDQUOT)])
    func `held, a write waits for room, others go on, and its data is right`(error: Errno) throws {
        let bench = try bench()
        fill(error)
        let data = pattern(1536, seed: 9)
        let write = bench.submit(.write(sector: 4, data))
        let read = bench.submit(.read(sector: 0, count: 512))
        let flush = bench.submit(.flush)
        #expect(bench.disk.settle())
        let answers = try bench.answers()
        #expect(Set(answers.keys) == [read, flush])
        #expect(bench.outstanding == 1 && bench.disk.queues[0].heldCount == 1 && held == 1)
        #expect(bench.faults.noSpace == 0)
        // Nobody has made room: it waits on.
        statistics.retryHeldRequests()
        #expect(bench.disk.settle())
        #expect(try bench.answers().isEmpty && held == 1)
        makeRoom()
        statistics.retryHeldRequests()
        #expect(bench.disk.settle())
        #expect(try bench.answers()[write]?.status == ok)
        #expect(storage.contents[2048..<3584] == data[...])
        #expect(bench.outstanding == 0 && held == 0)
    }

    @Test func `a write that was done in part goes on where it stood`() throws {
        let bench = try bench()
        var calls = 0
        storage.outcome = { _, _ in
            calls += 1
            return calls == 1 ? .short(512) : .fails(.noSpace)
        }
        let data = pattern(2048, seed: 3)
        let head = bench.submit(.write(sector: 8, data))
        #expect(bench.disk.settle())
        #expect(held == 1)
        makeRoom()
        storage.clearHistory()
        statistics.retryHeldRequests()
        #expect(bench.disk.settle())
        #expect(try bench.answers()[head]?.status == ok)
        #expect(storage.contents[4096..<6144] == data[...])
        #expect(storage.history.count == 1 && storage.history[0].offset == 4096 + 512)
    }

    @Test func `many wait, in any number of rounds, and all are answered once`() throws {
        let bench = try bench()
        fill()
        let heads = (0..<20).map { bench.submit(.write(sector: UInt64($0), pattern(512, seed: $0))) }
        #expect(bench.disk.settle())
        #expect(held == 20)
        for _ in 0..<3 {
            statistics.retryHeldRequests()
            #expect(bench.disk.settle())
            #expect(held == 20)
        }
        // Room for some.
        var room = 7
        storage.outcome = { _, _ in
            room -= 1
            return room >= 0 ? .complete : .fails(.noSpace)
        }
        statistics.retryHeldRequests()
        #expect(bench.disk.settle())
        #expect(try bench.answers().count == 7)
        #expect(held == 13)
        makeRoom()
        statistics.retryHeldRequests()
        #expect(bench.disk.settle())
        #expect(try bench.answers().count == 13)
        #expect(bench.counts[.write].operations == UInt64(heads.count) && bench.counts.errors == 0)
    }

    @Test func `zeroes wait for room as data does`() throws {
        let bench = try bench()
        fill()
        let head = bench.submit(.writeZeroes(SectorRange(0, 8), SectorRange(16, 8)))
        #expect(bench.disk.settle())
        #expect(held == 1)
        makeRoom()
        statistics.retryHeldRequests()
        #expect(bench.disk.settle())
        #expect(try bench.answers()[head]?.status == ok)
        #expect(storage.contents[..<4096].allSatisfy { $0 == 0 })
    }

    /// The kernel tells once that data it had taken over found no room, and says that all is well when asked again.
    @Test func `a flush that finds no room is never held`() throws {
        let bench = try bench()
        storage.outcome = { operation, _ in operation.kind == .synchronizeData ? .fails(.noSpace) : .complete }
        #expect(try bench.perform(.flush).status == ioError)
        #expect(held == 0 && bench.faults.noSpace == 1)
    }

    @Test func `nor is a durable write through the page cache`() throws {
        let bench = try bench(writesThrough: true)
        fill()
        #expect(try bench.perform(.write(sector: 0, pattern(512))).status == ioError)
        storage.directAlignment = (512, 512)
        let direct = try self.bench(writesThrough: true)
        let head = direct.submit(.write(sector: 0, pattern(512)))
        #expect(direct.disk.settle())
        #expect(held == 1)
        makeRoom()
        statistics.retryHeldRequests()
        #expect(direct.disk.settle())
        #expect(try direct.answers()[head]?.status == ok)
    }

    @Test func `when holding is taken back, those that wait are tried once more and answered`() throws {
        let bench = try bench()
        fill()
        let head = bench.submit(.write(sector: 0, pattern(512)))
        #expect(bench.disk.settle())
        statistics.setPolicy(DevicePolicy())
        #expect(bench.disk.settle())
        #expect(try bench.answers()[head]?.status == ioError)
        #expect(held == 0 && bench.faults.noSpace == 1)
    }

    @Test func `a queue that stops waits for no room`() throws {
        let bench = try bench()
        fill()
        let head = bench.submit(.write(sector: 0, pattern(512)))
        #expect(bench.disk.settle())
        bench.disk.queues[0].endHolding()
        #expect(bench.disk.settle())
        #expect(try bench.answers()[head]?.status == ioError)
        #expect(bench.outstanding == 0 && held == 0)
    }

    // MARK: Limits

    @Test func `at its limit a device leaves requests in the ring, however large one was`() throws {
        let bench = try bench()
        statistics.setPolicy(DevicePolicy(limits: RateLimits(bandwidth: 4096, bandwidthBurst: 4096)))
        let first = bench.submit(.write(sector: 0, pattern(65536)))
        bench.submit(.flush)
        #expect(bench.disk.settle())
        #expect(try bench.answers().keys.map(\.self) == [first])
        #expect(bench.outstanding == 0 && bench.disk.queues[0].nextAvailable == 1)
        // The limit is taken away: it goes on.
        statistics.setPolicy(DevicePolicy())
        #expect(bench.disk.settle())
        #expect(try bench.answers().count == 1)
    }

    @Test func `requests that are refused do not pay for what their slot had before`() throws {
        let bench = try bench()
        statistics.setPolicy(DevicePolicy(limits: RateLimits(bandwidth: 4096, bandwidthBurst: 1 << 20)))
        #expect(try bench.perform(.write(sector: 0, pattern(65536))).status == ok)
        for _ in 0..<20 { #expect(try bench.perform(GuestRequest(type: 77)).status == unsupported) }
        for _ in 0..<16 { bench.submit(.read(sector: 0, count: 65536)) }
        #expect(bench.disk.settle())
        #expect(try bench.answers().count == 16)
        bench.submit(.flush)
        #expect(bench.disk.settle())
        #expect(try bench.answers().isEmpty && bench.disk.queues[0].nextAvailable == 37)
    }
}
