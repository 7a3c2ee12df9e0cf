internal import Platform

/// Random requests as fast as a back-end takes them: for benchmarks. Looks at the status of each request, not at its
/// data.
///
/// One thread polls all queues and never sleeps, so that it is not the client's wake-up that is measured.
public struct ThroughputLoad: ~Copyable {
    public struct Options: Sendable {
        public var seed: UInt64 = 1
        /// Requests in flight on each queue.
        public var depth = 32
        /// Bytes of each request, a multiple of 512.
        public var requestSize = 4096
        /// How many of 100 requests are writes.
        public var writePercentage: UInt64 = 0
        /// Bytes of the disk that are touched, from its beginning.
        public var span: UInt64 = 1 << 30
        public var chainLayout = BlockQueue.ChainLayout.direct
        /// How long nothing may complete before the load gives up, in milliseconds.
        public var stallLimit = 30_000

        public init() {}
    }

    private var lanes: OwnedArray<Lane>
    private let options: Options
    private var random: SeededGenerator
    private var report = ThroughputReport()

    /// Bytes of guest memory that a load takes, rings not included.
    public static func memoryNeeded(_ options: Options, queueCount: Int) -> Int {
        queueCount * options.depth * (options.requestSize + 256) + 65536
    }

    /// - Parameter allocator: memory for `memoryNeeded` bytes.
    public init(
        _ endpoints: [QueueEndpoint], usesEventIndex: Bool, options: Options, in allocator: inout GuestAllocator
    ) {
        self.options = options
        random = SeededGenerator(seed: options.seed)
        lanes = OwnedArray(count: endpoints.count) { index in
            let driver = DriverQueue(endpoints[index], usesEventIndex: usesEventIndex)
            return Lane(
                queue: BlockQueue(driver, depth: options.depth, layout: options.chainLayout, in: &allocator),
                buffers: allocator.allocate(options.depth * options.requestSize, alignment: 4096))
        }
    }

    /// Fills the queues. Then `measure` as often as wanted, and `drain`.
    public mutating func start() {
        for index in 0..<lanes.count {
            for slot in 0..<options.depth {
                let buffer = lanes[index].buffers + UInt64(slot * options.requestSize)
                lanes[index].queue.submit(request(buffer: buffer, at: monotonicNanoseconds()))
            }
            lanes[index].queue.publish()
        }
    }

    /// Keeps the queues full for a time and reports what completed in it.
    public mutating func measure(milliseconds: Int) throws(LoadError) -> ThroughputReport {
        report = ThroughputReport()
        let start = monotonicNanoseconds()
        try poll(until: start + UInt64(milliseconds) * 1_000_000)
        report.nanoseconds = monotonicNanoseconds() - start
        return report
    }

    /// Replaces each request that completes by another.
    private mutating func poll(until end: UInt64) throws(LoadError) {
        var lastProgress = monotonicNanoseconds()
        var now = lastProgress
        while now < end {
            now = monotonicNanoseconds()
            for index in 0..<lanes.count where try replaceCompleted(lane: index, now: now) > 0 { lastProgress = now }
            try checkStall(since: lastProgress, now)
        }
    }

    private mutating func replaceCompleted(lane index: Int, now: UInt64) throws(LoadError) -> Int {
        var count = 0
        do throws(QueueViolation) {
            while let completion = try lanes[index].queue.nextCompletion() {
                if completion.status != .ok { report.errors += 1 }
                // A completion may have come after `now` was read; such a one took no time that could be told.
                report.latency.record(now > completion.token ? now - completion.token : 0)
                lanes[index].queue.submit(request(buffer: completion.dataAddress, at: now))
                count += 1
            }
        } catch {
            throw .violation(error, queue: index)
        }
        if count > 0 { lanes[index].queue.publish() }
        report.requests += count
        return count
    }

    /// Waits for what is in flight.
    public mutating func drain() throws(LoadError) {
        var lastProgress = monotonicNanoseconds()
        for index in 0..<lanes.count {
            while lanes[index].queue.outstanding > 0 {
                do throws(QueueViolation) {
                    if try lanes[index].queue.nextCompletion() != nil { lastProgress = monotonicNanoseconds() }
                } catch {
                    throw .violation(error, queue: index)
                }
                try checkStall(since: lastProgress, monotonicNanoseconds())
            }
        }
    }

    private borrowing func checkStall(since lastProgress: UInt64, _ now: UInt64) throws(LoadError) {
        guard now > lastProgress + UInt64(options.stallLimit) * 1_000_000 else { return }
        var outstanding = 0
        for index in 0..<lanes.count { outstanding += lanes[index].queue.outstanding }
        throw .stalled(outstanding: outstanding, milliseconds: options.stallLimit)
    }

    private mutating func request(buffer: UInt64, at now: UInt64) -> BlockRequest {
        let sectors = UInt64(options.requestSize) / 512
        let place = random.next(below: max(1, options.span / UInt64(options.requestSize)))
        let isWrite = options.writePercentage > 0 && random.next(below: 100) < options.writePercentage
        return BlockRequest(
            isWrite ? .write : .read, sector: place * sectors, dataAddress: buffer,
            dataLength: UInt32(options.requestSize), token: now)
    }
}

/// A queue and the buffers of its requests.
private struct Lane: ~Copyable {
    var queue: BlockQueue
    let buffers: UInt64
}

/// What a throughput load measured.
public struct ThroughputReport: Sendable {
    public var requests = 0
    /// Requests that ended with another status than "ok".
    public var errors = 0
    /// How long it was measured, in nanoseconds.
    public var nanoseconds: UInt64 = 0
    /// From submission until the completion was seen.
    public var latency = LatencyHistogram()

    public var requestsPerSecond: Double {
        nanoseconds == 0 ? 0 : Double(requests) * 1e9 / Double(nanoseconds)
    }
}
