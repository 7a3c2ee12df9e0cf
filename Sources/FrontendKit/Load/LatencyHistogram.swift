/// How long requests took: log-linear, 32 steps for each doubling, so a figure is right to about 3 %.
///
/// Recording allocates nothing. Histograms add up, so each thread has its own.
public struct LatencyHistogram: Sendable {
    private static let stepBits = 5
    private static let steps = 1 << stepBits
    /// Values below 32 ns have a bucket each; above, 32 for each of the 59 doublings.
    private static let bucketCount = steps * (64 - stepBits + 1)

    private var buckets = [UInt64](repeating: 0, count: bucketCount)
    /// How many values were recorded.
    public private(set) var count: UInt64 = 0
    /// The largest value, exactly, in nanoseconds.
    public private(set) var maximum: UInt64 = 0

    public init() {}

    /// Records one duration in nanoseconds.
    public mutating func record(_ nanoseconds: UInt64) {
        buckets[Self.bucket(of: nanoseconds)] += 1
        count += 1
        maximum = max(maximum, nanoseconds)
    }

    /// Adds everything that another histogram has recorded.
    public mutating func add(_ other: LatencyHistogram) {
        for index in buckets.indices { buckets[index] += other.buckets[index] }
        count += other.count
        maximum = max(maximum, other.maximum)
    }

    /// The duration in nanoseconds that `fraction` of the values do not exceed; 0 when nothing was recorded.
    ///
    /// - Parameter fraction: 0 to 1; 0.99 for the 99th percentile.
    public func quantile(_ fraction: Double) -> UInt64 {
        let rank = UInt64((Double(count) * fraction).rounded(.up))
        var seen: UInt64 = 0
        for index in buckets.indices where buckets[index] > 0 {
            seen += buckets[index]
            if seen >= rank { return min(Self.upperEnd(of: index), maximum) }
        }
        return maximum
    }

    private static func bucket(of value: UInt64) -> Int {
        let shift = max(0, 63 - stepBits - value.leadingZeroBitCount)
        return (shift << stepBits) + Int(value >> UInt64(shift))
    }

    /// The largest value that falls into a bucket.
    private static func upperEnd(of index: Int) -> UInt64 {
        let shift = max(0, (index >> stepBits) - 1)
        let low = UInt64(index - (shift << stepBits)) << UInt64(shift)
        return low + ((1 << UInt64(shift)) - 1)
    }
}
