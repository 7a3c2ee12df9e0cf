internal import CWire
internal import Platform

/// How much a device may do in a second. 0: no limit, or a burst that nobody has chosen.
public struct RateLimits: Codable, Hashable, Sendable {
    /// Requests of all kinds, in a second.
    public var operations: UInt64
    /// Requests that may come at once after a rest; 0: a tenth of a second's worth.
    public var operationBurst: UInt64
    /// Bytes of reads and writes, in a second.
    public var bandwidth: UInt64
    /// Bytes that may come at once after a rest; 0: a tenth of a second's worth.
    public var bandwidthBurst: UInt64

    public init(operations: UInt64 = 0, operationBurst: UInt64 = 0, bandwidth: UInt64 = 0, bandwidthBurst: UInt64 = 0) {
        self.operations = operations
        self.operationBurst = operationBurst
        self.bandwidth = bandwidth
        self.bandwidthBurst = bandwidthBurst
    }

    /// The limits that can be had.
    public static let operationRange: ClosedRange<UInt64> = 1...10_000_000
    public static let byteRange: ClosedRange<UInt64> = 4096...1 << 40
}

/// What an operator wants of a device, beside what it is: lies with what its workers count, in memory that outlives
/// them, so that a limit holds over every death and every upgrade. The supervisor writes it, loops read it.
public struct DevicePolicy: Hashable, Sendable {
    public var limits: RateLimits
    /// A request that finds no room on the host (ENOSPC, EDQUOT) waits for it; else it is answered with an error.
    public var holdsForRoom: Bool

    public init(limits: RateLimits = RateLimits(), holdsForRoom: Bool = false) {
        self.limits = limits
        self.holdsForRoom = holdsForRoom
    }
}

extension DeviceStatistics {
    /// Where the policy lies. Valid while this lives.
    var policyBlock: UnsafeMutableRawPointer { unsafe mapping.base + Int(WIRE_STATISTICS_POLICY) }

    private func word(_ field: Int) -> UInt64 { unsafe wire_load64(policyBlock + field) }
    private func setWord(_ field: Int, _ value: UInt64) { unsafe wire_store64(policyBlock + field, value) }

    /// What holds now.
    public var policy: DevicePolicy {
        let limits = RateLimits(
            operations: word(Int(WIRE_POLICY_OPERATIONS)), operationBurst: word(Int(WIRE_POLICY_OPERATION_BURST)),
            bandwidth: word(Int(WIRE_POLICY_BANDWIDTH)), bandwidthBurst: word(Int(WIRE_POLICY_BANDWIDTH_BURST)))
        return DevicePolicy(limits: limits, holdsForRoom: word(Int(WIRE_POLICY_HOLDS_FOR_ROOM)) == 1)
    }

    /// Has another policy hold from now on. Loops see it within a tenth of a second. A limit that stays as it is keeps
    /// its bucket; one that changes begins with a full one.
    ///
    /// A death between the stores leaves a part of it; the successor stores all of it again. A loop that reads
    /// meanwhile
    /// takes rate and burst of two policies for one batch.
    public func setPolicy(_ new: DevicePolicy) {
        let old = policy
        if old.limits != new.limits {
            setWord(Int(WIRE_POLICY_IS_LIMITED), 0)
            if old.limits.operations != new.limits.operations { clearBucket(0) }
            if old.limits.bandwidth != new.limits.bandwidth { clearBucket(1) }
            setWord(Int(WIRE_POLICY_OPERATIONS), new.limits.operations)
            setWord(Int(WIRE_POLICY_OPERATION_BURST), new.limits.operationBurst)
            setWord(Int(WIRE_POLICY_BANDWIDTH), new.limits.bandwidth)
            setWord(Int(WIRE_POLICY_BANDWIDTH_BURST), new.limits.bandwidthBurst)
        }
        let isLimited = new.limits.operations > 0 || new.limits.bandwidth > 0
        setWord(Int(WIRE_POLICY_IS_LIMITED), isLimited ? 1 : 0)
        setWord(Int(WIRE_POLICY_HOLDS_FOR_ROOM), new.holdsForRoom ? 1 : 0)
    }

    private func clearBucket(_ index: Int) {
        unsafe wire_store64(
            mapping.base + Int(WIRE_STATISTICS_RATE_BUCKETS) + index * Int(WIRE_RATE_BUCKET_BYTES), 0)
    }

    /// Has requests that wait for room on the host tried again at once.
    public func retryHeldRequests() {
        setWord(Int(WIRE_POLICY_RETRIES), word(Int(WIRE_POLICY_RETRIES)) &+ 1)
    }
}

/// The part of the policy that says what becomes of requests that find no room on the host, as a loop reads it.
/// Belongs to one thread; allocates nothing.
@safe public struct RoomPolicy: ~Copyable, @unchecked Sendable {
    private let block: UnsafeMutableRawPointer
    private let statistics: DeviceStatistics

    public init(_ statistics: DeviceStatistics) {
        self.statistics = statistics
        unsafe block = statistics.policyBlock
    }

    /// They wait for it.
    public var holds: Bool { unsafe wire_load64(block + Int(WIRE_POLICY_HOLDS_FOR_ROOM)) == 1 }
    /// Another number than before: try again at once.
    public var retries: UInt64 { unsafe wire_load64(block + Int(WIRE_POLICY_RETRIES)) }
}
