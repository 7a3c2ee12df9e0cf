internal import CWire

/// How long requests took: counts in buckets, 16 for each doubling above 1024 ns, so that a bucket's middle is right to
/// 3.2 %. Below that, 16 buckets of 64 ns; what takes longer than 137 s is in the last one.
///
/// A power of two of nanoseconds, from 1024 on, is the border of two buckets.
public struct LatencyBuckets: Hashable, Sendable {
    /// One for each bucket.
    public private(set) var counts: [UInt64]

    /// The number of buckets.
    public static let count = Int(WIRE_STATISTICS_BUCKETS)
    private static let stepBits = 4
    /// The width of the narrowest buckets, as a power of two of nanoseconds.
    private static let unitBits = 6

    public init() { counts = Array(repeating: 0, count: Self.count) }

    /// The bucket of a duration in nanoseconds.
    static func bucket(of nanoseconds: UInt64) -> Int {
        let units = nanoseconds >> UInt64(unitBits)
        let shift = max(0, 63 - stepBits - units.leadingZeroBitCount)
        return min(count - 1, (shift << stepBits) + Int(truncatingIfNeeded: units >> UInt64(shift)))
    }

    /// The durations in a bucket, in nanoseconds; those of the last one have no end.
    public static func range(of bucket: Int) -> Range<UInt64> {
        let shift = max(0, (bucket >> stepBits) - 1)
        let low = UInt64(bucket - (shift << stepBits)) << UInt64(shift + unitBits)
        return low..<(bucket == count - 1 ? .max : low + (1 << UInt64(shift + unitBits)))
    }

    /// Counts requests that took so many nanoseconds each.
    public mutating func record(_ nanoseconds: UInt64, count: UInt64 = 1) {
        counts[Self.bucket(of: nanoseconds)] &+= count
    }

    /// Adds to one bucket.
    mutating func add(_ count: UInt64, toBucket bucket: Int) { counts[bucket] &+= count }

    /// Adds what another has counted.
    public mutating func add(_ other: LatencyBuckets) {
        for index in counts.indices { counts[index] &+= other.counts[index] }
    }

    /// How many took less than a power of two of nanoseconds.
    ///
    /// - Parameter exponent: 10 to 36.
    public func total(belowPowerOfTwo exponent: Int) -> UInt64 {
        precondition((10...36).contains(exponent))
        return counts[..<Self.bucket(of: 1 << UInt64(exponent))].reduce(0, &+)
    }
}
