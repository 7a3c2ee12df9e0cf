internal import CWire

/// Requests of one kind that were returned.
public struct KindCounts: Hashable, Sendable {
    /// All of them.
    public var operations: UInt64 = 0
    /// Moved, discarded or zeroed by those that succeeded.
    public var bytes: UInt64 = 0
    /// Answered with an error status.
    public var errors: UInt64 = 0
    /// From when they were taken until they were published, in all; 0 for kinds that are not timed.
    public var nanoseconds: UInt64 = 0

    public init() {}

    mutating func add(_ other: KindCounts) {
        operations &+= other.operations
        bytes &+= other.bytes
        errors &+= other.errors
        nanoseconds &+= other.nanoseconds
    }

    mutating func subtract(_ earlier: KindCounts) {
        operations &-= earlier.operations
        bytes &-= earlier.bytes
        errors &-= earlier.errors
        nanoseconds &-= earlier.nanoseconds
    }
}

/// What a queue, or all queues of a device, have counted.
public struct QueueCounts: Hashable, Sendable {
    private var kinds = Array(repeating: KindCounts(), count: RequestKind.allCases.count)
    /// Broken chains and nonsensical requests, of those that were refused.
    public var malformed: UInt64 = 0
    /// Interrupts sent to the guest.
    public var interrupts: UInt64 = 0
    /// Completions that matched no request.
    public var staleCompletions: UInt64 = 0

    public init() {}

    public subscript(_ kind: RequestKind) -> KindCounts {
        get { kinds[Int(kind.rawValue)] }
        set { kinds[Int(kind.rawValue)] = newValue }
    }

    /// Requests of all kinds.
    public var operations: UInt64 { kinds.reduce(0) { $0 &+ $1.operations } }

    /// Requests of all kinds that were answered with an error status.
    public var errors: UInt64 { kinds.reduce(0) { $0 &+ $1.errors } }

    /// Adds another queue's counts.
    public mutating func add(_ other: QueueCounts) {
        for index in kinds.indices { kinds[index].add(other.kinds[index]) }
        malformed &+= other.malformed
        interrupts &+= other.interrupts
        staleCompletions &+= other.staleCompletions
    }

    /// Leaves what has been counted since `earlier`.
    public mutating func subtract(_ earlier: QueueCounts) {
        for index in kinds.indices { kinds[index].subtract(earlier.kinds[index]) }
        malformed &-= earlier.malformed
        interrupts &-= earlier.interrupts
        staleCompletions &-= earlier.staleCompletions
    }
}

/// What a device has done since it was made, as of a moment.
public struct StatisticsReading: Hashable, Sendable {
    /// When it was read, in nanoseconds of CLOCK_MONOTONIC.
    public var time: UInt64
    /// Of all queues.
    public var counts = QueueCounts()
    /// Of all queues: how long reads, writes and flushes took.
    public var latencies: [RequestKind: LatencyBuckets] = [:]
    /// Of all loops.
    public var faults: [StorageFault: UInt64] = [:]
    /// Requests that were taken and not returned yet. The worker that has taken them may be dead.
    public var inFlight: UInt64 = 0
    /// How long the oldest of them has been in flight, in nanoseconds; nil when there is none.
    public var oldest: UInt64?
    /// Nanoseconds in which requests were there and had to wait for a limit, added up over the queues.
    public var throttled: UInt64 = 0
    /// Requests that wait for room on the host.
    public var held: UInt64 = 0
    /// Of a share: nodes that its driver knows, and files and directories that it has open.
    public var nodes: UInt64 = 0
    public var openFiles: UInt64 = 0
    /// When the device last changed hands; nil: it never has.
    public var lastGap: Gap?
    /// How often it has, by cause.
    public var gaps: [DeviceStatistics.GapCause: UInt64] = [:]

    /// A time in which a device was without a worker.
    public struct Gap: Hashable, Sendable {
        public var nanoseconds: UInt64
        public var cause: DeviceStatistics.GapCause

        public init(nanoseconds: UInt64, cause: DeviceStatistics.GapCause) {
            self.nanoseconds = nanoseconds
            self.cause = cause
        }
    }

    /// Kinds that are timed.
    public static let timedKinds: [RequestKind] = [.read, .write, .flush]

    init(time: UInt64) { self.time = time }
}

extension DeviceStatistics {
    /// What a queue has counted.
    func counts(of queue: Int) -> QueueCounts {
        let block = unsafe block(of: queue)
        var counts = QueueCounts()
        for kind in RequestKind.allCases {
            let row = unsafe block + Int(kind.rawValue) * MemoryLayout<wire_statistics_kind>.size
            unsafe counts[kind].operations = wire_load64(row)
            unsafe counts[kind].bytes = wire_load64(row + 8)
            unsafe counts[kind].errors = wire_load64(row + 16)
            unsafe counts[kind].nanoseconds = wire_load64(row + 24)
        }
        unsafe counts.malformed = wire_load64(block + Int(WIRE_STATISTICS_MALFORMED))
        unsafe counts.interrupts = wire_load64(block + Int(WIRE_STATISTICS_INTERRUPTS))
        unsafe counts.staleCompletions = wire_load64(block + Int(WIRE_STATISTICS_STALE))
        return counts
    }

    /// How long a queue's requests of a kind that is timed have taken.
    func latencies(of queue: Int, _ kind: RequestKind) -> LatencyBuckets {
        var buckets = LatencyBuckets()
        let first =
            unsafe block(of: queue) + Int(WIRE_STATISTICS_FIRST_BUCKET)
            + Int(kind.rawValue) * 8 * LatencyBuckets.count
        for bucket in 0..<LatencyBuckets.count { unsafe buckets.add(wire_load64(first + 8 * bucket), toBucket: bucket) }
        return buckets
    }

    /// Adds up what all queues and loops say at this moment. Nobody is stopped for it.
    ///
    /// - Parameter now: in nanoseconds of CLOCK_MONOTONIC.
    public func read(at now: UInt64) -> StatisticsReading {
        var reading = StatisticsReading(time: now)
        var oldest = UInt64.max
        for queue in 0..<queueCount {
            reading.counts.add(counts(of: queue))
            for kind in StatisticsReading.timedKinds {
                reading.latencies[kind, default: LatencyBuckets()].add(latencies(of: queue, kind))
            }
            let block = unsafe block(of: queue)
            unsafe reading.throttled &+= wire_load64(block + Int(WIRE_STATISTICS_THROTTLED))
            unsafe reading.held &+= wire_load64(block + Int(WIRE_STATISTICS_HELD))
            let words = unsafe block + Self.queueBytes
            for slot in 0..<queueSize {
                let word = unsafe wire_load64(words + 8 * slot)
                guard word != 0, word & 1 == 0 else { continue }
                reading.inFlight += 1
                oldest = min(oldest, word >> 1)
            }
        }
        // It may have been taken since `now`.
        if reading.inFlight > 0 { reading.oldest = now > oldest ? now - oldest : 0 }
        (reading.nodes, reading.openFiles) = (load(Int(WIRE_STATISTICS_NODES)), load(Int(WIRE_STATISTICS_OPEN_FILES)))
        for loop in 0..<Int(WIRE_STATISTICS_MAX_LOOPS) {
            let block = unsafe loopBlock(loop)
            for fault in StorageFault.allCases {
                let count = unsafe wire_load64(block + 8 * fault.rawValue)
                reading.faults[fault, default: 0] &+= count
            }
        }
        if let cause = GapCause(rawValue: load(Int(WIRE_STATISTICS_GAP_CAUSE))) {
            reading.lastGap = StatisticsReading.Gap(nanoseconds: load(Int(WIRE_STATISTICS_GAP)), cause: cause)
        }
        for cause in GapCause.allCases {
            reading.gaps[cause] = load(Int(WIRE_STATISTICS_GAPS) + 8 * Int(cause.rawValue - 1))
        }
        return reading
    }
}

extension DeviceStatistics {
    /// Requests that wait for room on the host, of all queues.
    public var heldRequests: UInt64 {
        (0..<queueCount).reduce(0) { $0 &+ (unsafe wire_load64(block(of: $1) + Int(WIRE_STATISTICS_HELD))) }
    }
}
