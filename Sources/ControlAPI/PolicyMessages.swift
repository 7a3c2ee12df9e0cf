// What a device may do in a second, and what becomes of requests that find no room on the host.

/// Rate limits. Absent: no limit, or the burst that nobody has chosen: what the limit gives in a tenth of a second.
public struct LimitInfo: Codable, Hashable, Sendable {
    /// Requests of all kinds in a second, 1 to 10000000.
    public var iops: UInt64?
    /// Requests that may come at once after a rest, 1 to 10000000.
    public var iopsBurst: UInt64?
    /// Bytes of reads and writes in a second, 4096 to 2^40.
    public var bandwidth: UInt64?
    /// Bytes that may come at once after a rest, 4096 to 2^40.
    public var bandwidthBurst: UInt64?

    public init(
        iops: UInt64? = nil, iopsBurst: UInt64? = nil, bandwidth: UInt64? = nil, bandwidthBurst: UInt64? = nil
    ) {
        self.iops = iops
        self.iopsBurst = iopsBurst
        self.bandwidth = bandwidth
        self.bandwidthBurst = bandwidthBurst
    }
}

/// Other limits for a device.
public struct LimitParameters: Codable, Hashable, Sendable {
    public var name: String
    /// What is absent in it stays as it is; but a burst goes back to the standard one with another limit. 0: no limit.
    public var change: LimitInfo
    /// Begin with no limits.
    public var none: Bool

    public init(name: String, change: LimitInfo, none: Bool) {
        self.name = name
        self.change = change
        self.none = none
    }
}

extension LimitInfo {
    /// These limits with a change.
    public func changed(_ change: LimitInfo) -> LimitInfo {
        func value(_ old: UInt64?, _ new: UInt64?) -> UInt64? { new.map { $0 == 0 ? nil : $0 } ?? old }
        var result = LimitInfo()
        result.iops = value(iops, change.iops)
        result.iopsBurst = value(change.iops == nil ? iopsBurst : nil, change.iopsBurst)
        result.bandwidth = value(bandwidth, change.bandwidth)
        result.bandwidthBurst = value(change.bandwidth == nil ? bandwidthBurst : nil, change.bandwidthBurst)
        return result
    }
}

/// What is to become of a device's requests.
public struct SetParameters: Codable, Hashable, Sendable {
    public var name: String
    /// "report" or "hold"; absent: as it is.
    public var onEnospc: String?

    public init(name: String, onEnospc: String?) {
        self.name = name
        self.onEnospc = onEnospc
    }
}

/// Requests that wait for room on the host and are tried again.
public struct RetryResult: Codable, Hashable, Sendable {
    public var requests: UInt64

    public init(requests: UInt64) { self.requests = requests }
}
