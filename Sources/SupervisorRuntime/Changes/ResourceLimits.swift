/// What a device's workers may have of the host, against other devices: limits of their control group.
public struct ResourceLimits: Codable, Hashable, Sendable {
    /// 1 to 10000; nil: 100, as of other devices.
    public var cpuWeight: Int?
    /// At least `leastMemory`; nil: no limit.
    public var memoryBytes: UInt64?
    /// 1 to 10000; nil: 100.
    public var ioWeight: Int?

    /// A worker with less could not even start.
    public static let leastMemory: UInt64 = 16 << 20
    public static let weights = 1...10_000

    public init(cpuWeight: Int? = nil, memoryBytes: UInt64? = nil, ioWeight: Int? = nil) {
        self.cpuWeight = cpuWeight
        self.memoryBytes = memoryBytes
        self.ioWeight = ioWeight
    }

    /// - Throws: a sentence for the first one that is out of range.
    func validate() throws(SupervisorError) {
        for weight in [cpuWeight, ioWeight].compactMap(\.self) where !Self.weights.contains(weight) {
            throw .invalid("a weight is 1 to 10000, not \(weight)")
        }
        if let memoryBytes, memoryBytes < Self.leastMemory {
            throw .invalid("a worker needs at least \(Self.leastMemory) bytes of memory, not \(memoryBytes)")
        }
    }
}
