import ControlAPI
import SimulationKit
import Telemetry
import TestSupport
import Testing

/// Quantiles of known durations.
@Suite struct LatencyTests {
    private func info(_ durations: [UInt64]) -> LatencyInfo {
        var buckets = LatencyBuckets()
        for duration in durations { buckets.record(duration) }
        return info(buckets, sum: durations.reduce(0, &+))
    }

    private func info(_ buckets: LatencyBuckets, sum: UInt64) -> LatencyInfo {
        LatencyInfo(
            sum: sum,
            buckets: buckets.counts.indices.filter { buckets.counts[$0] > 0 }.map {
                let range = LatencyBuckets.range(of: $0)
                return BucketInfo(from: range.lowerBound, below: range.upperBound, count: buckets.counts[$0])
            })
    }

    @Test func `buckets follow each other without a gap, and are narrow`() {
        var end: UInt64 = 0
        for bucket in 0..<LatencyBuckets.count - 1 {
            let range = LatencyBuckets.range(of: bucket)
            #expect(range.lowerBound == end)
            #expect(range.count <= 64 || Double(range.count) / Double(range.lowerBound) <= 1 / 16)
            for duration in [range.lowerBound, range.upperBound - 1] {
                var one = LatencyBuckets()
                one.record(duration)
                #expect(one.counts[bucket] == 1, "\(duration) is not in \(range)")
            }
            end = range.upperBound
        }
        #expect(end > 130_000_000_000)
    }

    @Test func `quantiles are right to a few per cent`() throws {
        let seed = makeSeed()
        var random = SeededRandom(seed: seed)
        for scale in 10...34 as ClosedRange<UInt64> {
            let durations = (0..<5_000).map { _ in 1_000 + random.next() % (1 << scale) }
            let (sorted, found) = (durations.sorted(), info(durations))
            for (fraction, value) in [(0.5, found.p50), (0.99, found.p99)] {
                let exact = Double(sorted[Int((5_000 * fraction).rounded(.up)) - 1])
                let error = abs(Double(try #require(value)) - exact) / exact
                #expect(error < 0.035, "seed \(seed): \(fraction) of 2^\(scale) is \(value ?? 0), not \(exact)")
            }
        }
    }

    @Test func `what was recorded between two looks is their difference`() {
        var buckets = LatencyBuckets()
        for _ in 0..<100 { buckets.record(50_000) }
        let before = info(buckets, sum: 0)
        for _ in 0..<10 { buckets.record(9_000_000) }
        let between = info(buckets, sum: 0).since(before)
        #expect(between.buckets.map(\.count) == [10])
        #expect(abs(Double(between.p50 ?? 0) - 9e6) < 0.035 * 9e6)
        #expect(before.since(before).p50 == nil, "nothing was recorded")
    }

    @Test func `counts below a power of two are exact`() {
        var buckets = LatencyBuckets()
        for duration in [1, 1023, 1024, 2047, 2048, 1 << 20, (1 << 20) - 1] as [UInt64] { buckets.record(duration) }
        #expect(buckets.total(belowPowerOfTwo: 10) == 2)
        #expect(buckets.total(belowPowerOfTwo: 11) == 4)
        #expect(buckets.total(belowPowerOfTwo: 20) == 6)
        #expect(buckets.total(belowPowerOfTwo: 36) == 7)
    }
}
