public import CWire
internal import Platform

/// Holds the rate of one device: two buckets, of requests and of bytes, which all loops of the device share and which
/// outlive its workers. Each loop asks before it takes a request, and pays when it knows what was asked for.
///
/// **What a SIGKILL leaves**: a charge is one compare-and-swap, made after the request was logged and begun. A death
/// before it loses the charge of this one request (the successor carries it out without one), a death after it loses
/// nothing. So N loops that are killed at once give away N requests, and never a fresh burst.
@safe public struct Throttle: ~Copyable, @unchecked Sendable {
    @usableFromInline let policy: UnsafeMutableRawPointer
    private let buckets: UnsafeMutableRawPointer
    private let statistics: DeviceStatistics

    public init(_ statistics: DeviceStatistics) {
        self.statistics = statistics
        unsafe policy = statistics.policyBlock
        unsafe buckets = statistics.mapping.base + Int(WIRE_STATISTICS_RATE_BUCKETS)
    }

    /// Whether there is any limit. Costs one load.
    @inlinable public var isOn: Bool { unsafe wire_load64(policy + Int(WIRE_POLICY_IS_LIMITED)) != 0 }

    /// Attempts of a charge that other loops come in the way of.
    private static let maximumAttempts = 1024

    private func bucket(_ rate: Int, _ burst: Int) -> RateBucket? {
        let rate = unsafe wire_load64(policy + rate)
        return rate == 0 ? nil : RateBucket(rate: rate, burst: unsafe wire_load64(policy + burst))
    }

    private var operations: RateBucket? {
        bucket(Int(WIRE_POLICY_OPERATIONS), Int(WIRE_POLICY_OPERATION_BURST))
    }

    private var bandwidth: RateBucket? {
        bucket(Int(WIRE_POLICY_BANDWIDTH), Int(WIRE_POLICY_BANDWIDTH_BURST))
    }

    private func place(_ index: Int) -> UnsafeMutableRawPointer {
        unsafe buckets + index * Int(WIRE_RATE_BUCKET_BYTES)
    }

    /// How long no request may be taken.
    ///
    /// - Parameter now: in nanoseconds of CLOCK_MONOTONIC.
    /// - Returns: nanoseconds; 0: one may.
    public func delay(at now: UInt64) -> UInt64 {
        let first = unsafe operations?.delay(fullAt: wire_load64(place(0)), at: now) ?? 0
        let second = unsafe bandwidth?.delay(fullAt: wire_load64(place(1)), at: now) ?? 0
        return max(first, second)
    }

    /// A request has been taken.
    ///
    /// - Parameter bytes: of data that it moves; 0 for one that moves none.
    public func charge(bytes: UInt64, at now: UInt64) {
        if let operations { charge(operations, 1, 0, now) }
        if bytes > 0, let bandwidth { charge(bandwidth, bytes, 1, now) }
    }

    private func charge(_ bucket: RateBucket, _ units: UInt64, _ index: Int, _ now: UInt64) {
        let place = unsafe place(index)
        for _ in 0..<Self.maximumAttempts {
            let fullAt = unsafe wire_load64(place)
            if unsafe wire_replace64(place, fullAt, bucket.charged(units, fullAt: fullAt, at: now)) { return }
        }
    }
}
