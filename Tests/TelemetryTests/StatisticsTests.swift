import Platform
import Telemetry
import TestSupport
import Testing

/// What a queue counts, and what a successor and a supervisor find of it.
@Suite struct StatisticsTests {
    private let slots = 64

    private func makeFile() throws -> OwnedFD { try DeviceStatistics.makeFile(queueCount: 2, queueSize: slots) }

    @Test func `every request is counted once, with its bytes, and timed`() throws {
        let statistics = try DeviceStatistics(queueCount: 2, queueSize: slots)
        var meter = QueueMeter(statistics, queue: 1, slots: slots)
        let before = monotonicNanoseconds()
        meter.beginBatch()
        for slot in 0..<20 as Range<UInt16> { meter.take(slot) }
        var reading = statistics.read(at: monotonicNanoseconds())
        #expect(reading.inFlight == 20)
        #expect(try #require(reading.oldest) <= monotonicNanoseconds() - before)
        for slot in 0..<20 as Range<UInt16> {
            let kind: RequestKind = slot < 10 ? .read : slot < 15 ? .write : .flush
            meter.giveBack(slot, kind.rawValue, bytes: slot < 15 ? 4096 : 0, isError: slot == 0)
        }
        meter.publish()
        let after = monotonicNanoseconds()
        reading = statistics.read(at: after)
        #expect(reading.inFlight == 0 && reading.oldest == nil)
        let (reads, writes, flushes) = (reading.counts[.read], reading.counts[.write], reading.counts[.flush])
        #expect(reads.operations == 10 && reads.bytes == 9 * 4096 && reads.errors == 1)
        #expect(writes.operations == 5 && writes.bytes == 5 * 4096 && writes.errors == 0)
        #expect(flushes.operations == 5)
        for (kind, counts) in [(RequestKind.read, reads), (.write, writes), (.flush, flushes)] {
            #expect(reading.latencies[kind]?.counts.reduce(0, +) == counts.operations)
            #expect(counts.nanoseconds <= (after - before) * counts.operations)
        }
    }

    /// Batches whose requests come back all at once, more of them than there are runs.
    @Test func `requests of many batches that come back together are all timed`() throws {
        let statistics = try DeviceStatistics(queueCount: 1, queueSize: slots)
        var meter = QueueMeter(statistics, queue: 0, slots: slots)
        for slot in 0..<UInt16(slots) {
            let batch = monotonicNanoseconds()
            while monotonicNanoseconds() == batch {}
            meter.beginBatch()
            meter.take(slot)
        }
        for slot in 0..<UInt16(slots) {
            meter.giveBack(slot, RequestKind.write.rawValue, bytes: 1, isError: false)
        }
        meter.publish()
        let reading = statistics.read(at: monotonicNanoseconds())
        #expect(reading.latencies[.write]?.counts.reduce(0, +) == UInt64(slots))
        #expect(reading.counts[.write].operations == UInt64(slots))
    }

    @Test func `a successor goes on with the sums, and times what it finds in flight from its beginning`() throws {
        let file = try makeFile()
        let start: UInt64
        do {
            let statistics = try DeviceStatistics(file, writable: true)
            var meter = QueueMeter(statistics, queue: 0, slots: slots)
            meter.beginBatch()
            start = monotonicNanoseconds()
            for slot in 0..<4 as Range<UInt16> { meter.take(slot) }
            // Returned and published, returned and not published, in flight, taken and not logged.
            meter.giveBack(0, RequestKind.read.rawValue, bytes: 512, isError: false)
            meter.publish()
            meter.giveBack(1, RequestKind.read.rawValue, bytes: 512, isError: false)
        }
        pause(milliseconds: 2)
        let statistics = try DeviceStatistics(file, writable: true)
        var meter = QueueMeter(statistics, queue: 0, slots: slots)
        meter.keepWords(of: [1, 2])
        let supervisor = try DeviceStatistics(file, writable: false)
        #expect(supervisor.read(at: monotonicNanoseconds()).inFlight == 1)
        // The guest gets both now.
        meter.giveBack(1, RequestKind.read.rawValue, bytes: 512, isError: false)
        meter.giveBack(2, RequestKind.write.rawValue, bytes: 512, isError: false)
        meter.publish()
        let reading = supervisor.read(at: monotonicNanoseconds())
        #expect(reading.counts[.read].operations == 2 && reading.counts[.read].bytes == 1024)
        #expect(reading.latencies[.read]?.counts.reduce(0, +) == 2)
        #expect(reading.counts[.write].operations == 1)
        #expect(reading.counts[.write].nanoseconds >= 2_000_000, "it has outlived its worker")
        #expect(reading.counts[.write].nanoseconds <= monotonicNanoseconds() - start + 1_000_000)
        #expect(reading.inFlight == 0)
    }

    @Test func `a queue whose driver has gone has nothing in flight`() throws {
        let statistics = try DeviceStatistics(queueCount: 1, queueSize: slots)
        var meter = QueueMeter(statistics, queue: 0, slots: slots)
        meter.beginBatch()
        meter.take(7)
        statistics.forgetRequests(queue: 0)
        #expect(statistics.read(at: monotonicNanoseconds()).inFlight == 0)
        // The storage finishes it yet.
        meter.giveBack(7, RequestKind.write.rawValue, bytes: 512, isError: false)
        meter.publish()
        let reading = statistics.read(at: monotonicNanoseconds())
        #expect(reading.counts[.write].operations == 1)
        #expect(reading.counts[.write].nanoseconds == 0, "nobody knows how long it took")
    }

    @Test func `a gap is told with its cause`() throws {
        let statistics = try DeviceStatistics(queueCount: 1, queueSize: slots)
        #expect(statistics.read(at: 1).lastGap == nil)
        statistics.noteServing(deathKnownSince: nil, at: 5_000)
        #expect(statistics.read(at: 1).lastGap == nil, "a start is no gap")
        statistics.noteStop(at: 10_000)
        statistics.noteServing(deathKnownSince: nil, at: 12_500)
        #expect(statistics.read(at: 1).lastGap == .init(nanoseconds: 2_500, cause: .handOver))
        statistics.noteServing(deathKnownSince: 20_000, at: 21_000)
        let reading = statistics.read(at: 1)
        #expect(reading.lastGap == .init(nanoseconds: 1_000, cause: .death))
        #expect(reading.gaps == [.death: 1, .handOver: 1])
    }

    @Test func `a file that is none is refused`() throws {
        #expect(throws: Errno.invalidArgument) {
            _ = try DeviceStatistics(try makeMemoryFile(name: "nothing", count: 0), writable: false)
        }
        #expect(throws: Errno.invalidArgument) {
            _ = try DeviceStatistics(try makeMemoryFile(name: "zeroes", count: 1 << 16), writable: false)
        }
    }
}
