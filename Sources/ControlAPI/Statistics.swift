// What a device has done since it was made, over all its workers. Field names are part of the interface.

/// A device's statistics as of a moment.
public struct StatisticsInfo: Codable, Hashable, Sendable {
    /// When they were read, in nanoseconds of CLOCK_MONOTONIC: for rates.
    public var time: UInt64
    public var reads: OperationInfo
    public var writes: OperationInfo
    public var flushes: OperationInfo
    public var discards: OperationInfo
    public var writeZeroes: OperationInfo
    /// Questions for the serial number.
    public var identifies: OperationInfo
    /// Not carried out: malformed, or nothing that this disk does.
    public var refused: OperationInfo
    /// Of those: broken chains and nonsensical requests.
    public var malformed: UInt64
    /// Interrupts sent to the guest.
    public var interrupts: UInt64
    /// Completions that matched no request.
    public var staleCompletions: UInt64
    public var storage: StorageInfo
    /// Requests taken and not returned yet.
    public var inFlight: UInt64
    /// How long the oldest of them has been in flight, in nanoseconds; absent when there is none.
    public var oldest: UInt64?
    /// When the device last changed hands; absent: it never has.
    public var lastGap: GapInfo?
    /// Times that a worker died and another took over.
    public var deaths: UInt64
    /// Times that a worker gave the device to another.
    public var handOvers: UInt64
    /// CPU time that the worker which has the device has used, in nanoseconds; absent when none has it.
    public var workerCPU: UInt64?
    /// Nanoseconds in which requests were there and had to wait for a limit, added up over the queues.
    public var throttled: UInt64 = 0
    /// Requests that wait for room on the host.
    public var held: UInt64 = 0
    /// What a shared directory does besides reading and writing, and making durable, which counts as `flushes`; absent
    /// for a disk. `discards`, `writeZeroes`, `identifies` and `refused` are a disk's: of a share they are 0.
    public var files: FileOperationsInfo?

    public init(
        time: UInt64, reads: OperationInfo, writes: OperationInfo, flushes: OperationInfo, discards: OperationInfo,
        writeZeroes: OperationInfo, identifies: OperationInfo, refused: OperationInfo, malformed: UInt64,
        interrupts: UInt64, staleCompletions: UInt64, storage: StorageInfo, inFlight: UInt64, oldest: UInt64?,
        lastGap: GapInfo?, deaths: UInt64, handOvers: UInt64, workerCPU: UInt64?
    ) {
        self.time = time
        self.reads = reads
        self.writes = writes
        self.flushes = flushes
        self.discards = discards
        self.writeZeroes = writeZeroes
        self.identifies = identifies
        self.refused = refused
        self.malformed = malformed
        self.interrupts = interrupts
        self.staleCompletions = staleCompletions
        self.storage = storage
        self.inFlight = inFlight
        self.oldest = oldest
        self.lastGap = lastGap
        self.deaths = deaths
        self.handOvers = handOvers
        self.workerCPU = workerCPU
    }

    /// Requests of all kinds.
    public var operations: UInt64 { kinds.reduce(0) { $0 &+ $1.operations } }
    /// Requests of all kinds that were answered with an error status.
    public var errors: UInt64 { kinds.reduce(0) { $0 &+ $1.errors } }

    private var kinds: [OperationInfo] {
        [reads, writes, flushes, discards, writeZeroes, identifies, refused] + (files?.kinds ?? [])
    }
}

/// Operations of a file system that move no data of files. Errors are counted whatever they are: a LOOKUP of what is
/// not there is answered with one.
public struct FileOperationsInfo: Codable, Hashable, Sendable {
    /// LOOKUP, GETATTR, READDIR and their like.
    public var lookups: OperationInfo
    /// Names made, removed, moved and linked.
    public var changes: OperationInfo
    /// Files and directories opened, created, closed and forgotten.
    public var opens: OperationInfo
    /// Attributes set, locks, space.
    public var attributes: OperationInfo
    /// Everything else, and what makes no sense.
    public var others: OperationInfo
    /// Files, directories and other nodes that the driver knows now; absent when an older batond answers.
    public var nodes: UInt64?
    /// Files and directories that it has open now; the same.
    public var openFiles: UInt64?

    public init(
        lookups: OperationInfo, changes: OperationInfo, opens: OperationInfo, attributes: OperationInfo,
        others: OperationInfo, nodes: UInt64, openFiles: UInt64
    ) {
        self.lookups = lookups
        self.changes = changes
        self.opens = opens
        self.attributes = attributes
        self.others = others
        (self.nodes, self.openFiles) = (nodes, openFiles)
    }

    var kinds: [OperationInfo] { [lookups, changes, opens, attributes, others] }
}

/// Requests of one kind that were returned.
public struct OperationInfo: Codable, Hashable, Sendable {
    public var operations: UInt64
    /// Moved, discarded or zeroed by those that succeeded.
    public var bytes: UInt64
    /// Answered with an error status.
    public var errors: UInt64
    /// How long they took, from when they were taken until the guest was shown the answer; absent for kinds that are
    /// not timed.
    public var latency: LatencyInfo?

    public init(operations: UInt64, bytes: UInt64, errors: UInt64, latency: LatencyInfo? = nil) {
        self.operations = operations
        self.bytes = bytes
        self.errors = errors
        self.latency = latency
    }
}

/// How long requests took. Quantiles are right to within 3.2 %, or 32 ns.
public struct LatencyInfo: Codable, Hashable, Sendable {
    /// Of all, in nanoseconds.
    public var sum: UInt64
    /// The median, in nanoseconds; absent when there were none.
    public var p50: UInt64?
    public var p99: UInt64?
    /// Those that count any.
    public var buckets: [BucketInfo]

    public init(sum: UInt64, buckets: [BucketInfo]) {
        self.sum = sum
        self.buckets = buckets
        p50 = Self.quantile(0.5, of: buckets)
        p99 = Self.quantile(0.99, of: buckets)
    }

    /// What was recorded since `earlier`.
    public func since(_ earlier: LatencyInfo) -> LatencyInfo {
        let before = Dictionary(earlier.buckets.map { ($0.from, $0.count) }) { first, _ in first }
        let buckets = buckets.compactMap { bucket -> BucketInfo? in
            let count = bucket.count &- (before[bucket.from] ?? 0)
            return count == 0 ? nil : BucketInfo(from: bucket.from, below: bucket.below, count: count)
        }
        return LatencyInfo(sum: sum &- earlier.sum, buckets: buckets)
    }

    /// This and another kind of requests together.
    public func adding(_ other: LatencyInfo) -> LatencyInfo {
        let all = Dictionary(grouping: buckets + other.buckets) { $0.from }.values.compactMap { same -> BucketInfo? in
            guard var bucket = same.first else { return nil }
            bucket.count = same.reduce(0) { $0 &+ $1.count }
            return bucket
        }
        return LatencyInfo(sum: sum &+ other.sum, buckets: all.sorted { $0.from < $1.from })
    }

    /// The middle of the bucket that has the value which a share of all do not exceed.
    static func quantile(_ fraction: Double, of buckets: [BucketInfo]) -> UInt64? {
        let total = buckets.reduce(0) { $0 &+ $1.count }
        guard total > 0 else { return nil }
        let rank = max(1, (Double(total) * fraction).rounded(.up))
        var seen: UInt64 = 0
        for bucket in buckets.sorted(by: { $0.from < $1.from }) {
            seen &+= bucket.count
            guard Double(seen) >= rank else { continue }
            return bucket.below.map { bucket.from / 2 + $0 / 2 } ?? bucket.from
        }
        return nil
    }
}

/// Requests that took from so long to so long, in nanoseconds.
public struct BucketInfo: Codable, Hashable, Sendable {
    public var from: UInt64
    /// Absent: without end.
    public var below: UInt64?
    public var count: UInt64

    public init(from: UInt64, below: UInt64?, count: UInt64) {
        self.from = from
        self.below = below
        self.count = count
    }
}

/// What the storage was found to do.
public struct StorageInfo: Codable, Hashable, Sendable {
    /// Requests that failed because the host had no room.
    public var noSpace: UInt64
    /// Operations that were tried again.
    public var retries: UInt64
    /// Short transfers that were continued.
    public var shortTransfers: UInt64
    /// Requests that reached behind the end of the image.
    public var unexpectedEnds: UInt64
    /// Every other error.
    public var errors: UInt64
    /// Parts of requests that went over a bounce buffer, because guest memory was not aligned.
    public var bounced: UInt64

    public init(
        noSpace: UInt64, retries: UInt64, shortTransfers: UInt64, unexpectedEnds: UInt64, errors: UInt64,
        bounced: UInt64
    ) {
        self.noSpace = noSpace
        self.retries = retries
        self.shortTransfers = shortTransfers
        self.unexpectedEnds = unexpectedEnds
        self.errors = errors
        self.bounced = bounced
    }
}

/// A time in which a device was without a worker.
public struct GapInfo: Codable, Hashable, Sendable {
    public var nanoseconds: UInt64
    /// "death": since the next worker learnt of it. "hand-over": since the worker before stopped.
    public var cause: String

    public init(nanoseconds: UInt64, cause: String) {
        self.nanoseconds = nanoseconds
        self.cause = cause
    }
}
