import FrontendKit
import Testing

@Suite struct LatencyHistogramTests {
    @Test func quantilesAreRightToThreePercent() {
        var histogram = LatencyHistogram()
        for value in 1...100_000 as ClosedRange<UInt64> { histogram.record(value) }
        for (fraction, expected) in [(0.5, 50_000.0), (0.99, 99_000.0), (1.0, 100_000.0), (0.0001, 10.0)] {
            let found = Double(histogram.quantile(fraction))
            #expect(found >= expected && found <= expected * 1.04, "\(fraction): \(found)")
        }
        #expect(histogram.maximum == 100_000)
    }

    @Test func takesAnyValueAndAddsUp() {
        var histogram = LatencyHistogram()
        #expect(histogram.quantile(0.5) == 0)
        histogram.record(0)
        var other = LatencyHistogram()
        other.record(.max)
        histogram.add(other)
        #expect(histogram.count == 2)
        #expect(histogram.quantile(0.5) == 0)
        #expect(histogram.quantile(1) == .max)
    }
}
