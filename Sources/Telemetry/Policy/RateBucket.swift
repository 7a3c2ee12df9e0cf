/// The arithmetic of a token bucket, as a pure function of its state and the time.
///
/// A bucket holds up to `burst` units, gets `rate` of them a second, and gives to whoever asks while there are any:
/// what
/// is asked for is known only afterwards, so the last one may leave it in debt, and the next one waits until the
/// debt is
/// paid. So a request that is larger than the burst passes, too, and what passes in the long run is the rate.
///
/// **State**: one word, when the bucket will be full. A bucket whose word has passed is full. One store changes it, so
/// a death finds it as it was before a charge, or as it was after.
public struct RateBucket: Hashable, Sendable {
    /// Units in a second, at least 1.
    public let rate: UInt64
    /// How long the bucket takes to become full from nothing, in nanoseconds.
    public let burstNanoseconds: UInt64

    /// Whoever waits is woken by a timer, which may be late: what a smaller bucket would get meanwhile, it would lose.
    public static let leastBurstNanoseconds: UInt64 = 10_000_000
    /// A burst that nobody has chosen.
    public static let standardBurstNanoseconds: UInt64 = 100_000_000
    /// Longer than that no bucket takes to become full, and no charge is.
    static let mostNanoseconds: UInt64 = 1 << 60

    /// - Parameters:
    ///   - rate: units in a second; 0 counts as 1.
    ///   - burst: units; 0: what the rate gives in a tenth of a second. Less than it gives in 10 ms counts as that.
    public init(rate: UInt64, burst: UInt64) {
        self.rate = max(1, rate)
        burstNanoseconds =
            burst == 0
            ? Self.standardBurstNanoseconds
            : max(Self.leastBurstNanoseconds, Self.nanoseconds(burst, rate: self.rate))
    }

    /// How long the rate takes to give so many units.
    static func nanoseconds(_ units: UInt64, rate: UInt64) -> UInt64 {
        let (high, low) = units.multipliedFullWidth(by: 1_000_000_000)
        guard high < rate else { return mostNanoseconds }
        return min(mostNanoseconds, rate.dividingFullWidth((high, low)).quotient)
    }

    /// How long the bucket gives nothing.
    ///
    /// - Parameters:
    ///   - fullAt: its state.
    ///   - now: on the same clock.
    /// - Returns: nanoseconds; 0: it gives.
    public func delay(fullAt: UInt64, at now: UInt64) -> UInt64 {
        guard fullAt > now else { return 0 }
        let missing = fullAt - now
        return missing < burstNanoseconds ? 0 : missing - burstNanoseconds + 1
    }

    /// The state after so many units were taken.
    public func charged(_ units: UInt64, fullAt: UInt64, at now: UInt64) -> UInt64 {
        let (sum, overflow) = max(fullAt, now).addingReportingOverflow(Self.nanoseconds(units, rate: rate))
        return overflow ? .max : sum
    }
}
