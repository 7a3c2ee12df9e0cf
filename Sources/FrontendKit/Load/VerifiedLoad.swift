internal import Platform
internal import Synchronization

/// Random requests whose data is verified: every sector read must hold what `DiskModel` allows.
///
/// With one thread, all queues share the disk and requests of different queues may meet on a sector. With a thread for
/// each queue, each has a part of the disk to itself. The same seed plans the same requests; in which order a real
/// back-end completes them is its own affair.
public struct VerifiedLoad: Sendable {
    public struct Options: Sendable {
        public var seed: UInt64
        /// Requests in flight on each queue.
        public var depth = 16
        /// The sectors of 512 bytes that are touched; the model takes about 250 bytes of memory for each.
        public var sectors: Range<UInt64>
        public var initialContent = InitialContent.zeros
        /// Requests begin and end at multiples of this many sectors.
        public var blockSectors: UInt64 = 1
        /// The longest request, in blocks.
        public var maximumBlocks: UInt64 = 16
        /// How often each operation is chosen, relative to the others; in the order of `LoadOperation.allCases`.
        public var weights: [UInt64] = [50, 40, 2, 4, 4]
        /// The most segments of a discard or write-zeroes request.
        public var maximumSegments = 1
        /// Whether requests may meet on a sector while they are in flight.
        public var overlapping = false
        public var chainLayout = BlockQueue.ChainLayout.direct
        /// The most descriptors that the data of a request is spread over.
        public var maximumPieces = 3
        /// Wait for interrupts, or poll the used rings.
        public var usesInterrupts = true
        public var threadPerQueue = false
        /// Ends after this many requests, the last sweep not counted; nil: no limit.
        public var requestLimit: Int? = 20_000
        /// Ends after this time, in milliseconds; nil: no limit.
        public var timeLimit: Int?
        /// At the end, reads every sector: a lost write shows even where chance has not read it.
        public var sweepsAtEnd = true
        /// How long nothing may complete before the load gives up, in milliseconds.
        public var stallLimit = 30_000

        public init(seed: UInt64, sectors: Range<UInt64>) {
            self.seed = seed
            self.sectors = sectors
        }

        /// Leaves out what a device does not offer, and keeps to its block size and limits.
        public mutating func adapt(to configuration: BlockConfiguration, features: UInt64) {
            func offers(_ feature: UInt64) -> Bool { features & feature != 0 }
            sectors = sectors.clamped(to: 0..<configuration.capacity)
            blockSectors = max(1, UInt64(configuration.blockSize) / 512)
            if !offers(VirtioFeatures.blockFlush) { weights[LoadOperation.flush.rawValue] = 0 }
            if !offers(VirtioFeatures.blockDiscard) { weights[LoadOperation.discard.rawValue] = 0 }
            if !offers(VirtioFeatures.blockWriteZeroes) { weights[LoadOperation.writeZeroes.rawValue] = 0 }
            let segments = min(configuration.maximumDiscardSegments, configuration.maximumWriteZeroesSegments)
            maximumSegments = Int(min(max(1, segments), 16))
            if !offers(VirtioFeatures.indirectDescriptors) { chainLayout = .direct }
        }

        /// Bytes of the longest request.
        var maximumBytes: Int { Int(blockSectors * maximumBlocks) * 512 }

        /// The gap before and behind each buffer, part of which is guarded; it keeps buffers at page boundaries.
        static let bufferGap = 4096

        /// Bytes of guest memory that a load takes, rings not included.
        public func memoryNeeded(queueCount: Int) -> Int {
            let buffers = depth * (maximumBytes + 2 * Self.bufferGap)
            let chains = depth * (64 + 32 * (maximumPieces + 2) + 64)
            let whole = buffers + chains + 2 * Self.bufferGap
            return queueCount * ((whole + Self.bufferGap - 1) / Self.bufferGap) * Self.bufferGap
        }
    }

    private let endpoints: [QueueEndpoint]
    private let usesEventIndex: Bool
    private let options: Options
    private let memory: GuestAllocator

    /// - Parameter endpoints: queues with nothing in flight, which the load drives alone while it runs.
    /// - Parameter allocator: guest memory for `memoryNeeded` bytes.
    public init(
        _ endpoints: [QueueEndpoint], usesEventIndex: Bool, options: Options, in allocator: inout GuestAllocator
    ) {
        precondition(!endpoints.isEmpty, "a load needs a queue")
        precondition(options.weights.count == LoadOperation.allCases.count, "each operation has a weight")
        self.endpoints = endpoints
        self.usesEventIndex = usesEventIndex
        self.options = options
        let needed = options.memoryNeeded(queueCount: endpoints.count)
        let start = allocator.allocate(needed, alignment: Options.bufferGap)
        memory = GuestAllocator(start..<start + UInt64(needed))
    }

    /// Runs to the end, in threads of its own or in this one.
    ///
    /// - Parameter monitor: lets another thread see how far it is, and end it.
    /// - Throws: what makes going on pointless. Wrong data does not: it is in the report.
    public func run(monitor: LoadMonitor = LoadMonitor()) throws(LoadError) -> LoadReport {
        var allocator = memory
        guard options.threadPerQueue else {
            var worker = try VerifiedWorker(
                endpoints, usesEventIndex: usesEventIndex, options: options, monitor: monitor, in: &allocator)
            return try worker.run()
        }
        let results = Results(seed: options.seed)
        do throws(Errno) {
            try runThreads(from: 0, allocator, monitor, results)
        } catch {
            throw .system(SystemError(cannot: "start", "a thread", error))
        }
        return try results.value()
    }

    /// Starts the thread of one queue and those after it; joins them in reverse.
    private func runThreads(
        from queue: Int, _ allocator: GuestAllocator, _ monitor: LoadMonitor, _ results: Results
    ) throws(Errno) {
        guard queue < endpoints.count else { return }
        let options = part(of: queue)
        var next = allocator
        let needed = options.memoryNeeded(queueCount: 1)
        let start = next.allocate(needed, alignment: Options.bufferGap)
        let (endpoint, usesEventIndex) = (endpoints[queue], usesEventIndex)
        let thread = try JoinableThread(name: "load-\(queue)") {
            do throws(LoadError) {
                var own = GuestAllocator(start..<start + UInt64(needed))
                var worker = try VerifiedWorker(
                    [endpoint], usesEventIndex: usesEventIndex, options: options, firstQueue: queue, monitor: monitor,
                    in: &own)
                results.add(try worker.run())
            } catch {
                monitor.requestStop()
                results.fail(error)
            }
        }
        do throws(Errno) {
            try runThreads(from: queue + 1, next, monitor, results)
        } catch {
            monitor.requestStop()
            thread.join()
            throw error
        }
        thread.join()
    }

    /// What one thread of several does: its share of sectors and requests.
    private func part(of queue: Int) -> Options {
        var part = options
        let count = UInt64(endpoints.count)
        let blocks = (options.sectors.upperBound - options.sectors.lowerBound) / options.blockSectors
        let share = blocks / count * options.blockSectors
        let first = options.sectors.lowerBound + share * UInt64(queue)
        part.sectors = first..<first + share
        part.seed = options.seed &+ UInt64(queue)
        part.requestLimit = options.requestLimit.map { ($0 + endpoints.count - 1) / endpoints.count }
        return part
    }
}

/// What other threads may see of a load, and do to it.
public final class LoadMonitor: Sendable {
    private let completed = Atomic<Int>(0)
    private let published = Atomic<Int>(0)
    private let stop = Atomic<Bool>(false)
    /// When the mark was set; 0: no mark.
    private let mark = Atomic<UInt64>(0)
    /// From the mark to the completion that it waited for; 0: none yet.
    private let gap = Atomic<UInt64>(0)
    private let pause = Atomic<UInt64>(0)
    private let slowest = Atomic<UInt64>(0)
    private let beforeSweep: (@Sendable () -> Void)?

    /// - Parameter beforeSweep: called by each thread when nothing of its own is in flight, before it reads every
    ///   sector.
    public init(beforeSweep: (@Sendable () -> Void)? = nil) {
        self.beforeSweep = beforeSweep
    }

    /// Requests that have completed so far.
    public var completedRequests: Int { completed.load(ordering: .relaxed) }

    /// Requests that were made available so far.
    public var publishedRequests: Int { published.load(ordering: .relaxed) }

    /// Ends the load: it waits for what is in flight, sweeps, and reports.
    public func requestStop() { stop.store(true, ordering: .relaxed) }

    /// Looks, from now on, for the first completion of a request that is made available after this call: how long it
    /// takes until somebody serves again. One thread marks at a time.
    public func setMark() {
        gap.store(0, ordering: .relaxed)
        mark.store(monotonicNanoseconds(), ordering: .releasing)
    }

    /// From the mark to that completion, in nanoseconds; nil while there was none.
    public var nanosecondsSinceMark: UInt64? {
        let value = gap.load(ordering: .acquiring)
        return value == 0 ? nil : value
    }

    /// The longest time without any completion, on one thread, in nanoseconds; begins anew. What is under way does not
    /// count yet.
    public func takeLongestPause() -> UInt64 { pause.exchange(0, ordering: .relaxed) }

    /// How long the slowest request took that completed since this was last asked, in nanoseconds.
    public func takeSlowest() -> UInt64 { slowest.exchange(0, ordering: .relaxed) }

    func note(pause nanoseconds: UInt64) { pause.max(nanoseconds, ordering: .relaxed) }

    /// - Parameter submitted: no later than the request was made available.
    func completed(requestOf submitted: UInt64, at now: UInt64) {
        slowest.max(now - submitted, ordering: .relaxed)
        let marked = mark.load(ordering: .acquiring)
        guard marked != 0, submitted > marked else { return }
        let (mine, _) = mark.compareExchange(expected: marked, desired: 0, ordering: .relaxed)
        if mine { gap.store(max(1, now - marked), ordering: .releasing) }
    }

    var isStopRequested: Bool { stop.load(ordering: .relaxed) }

    func sweepBegins() { beforeSweep?() }

    func add(published count: Int) { published.add(count, ordering: .relaxed) }

    func add(_ count: Int) { completed.add(count, ordering: .relaxed) }
}

/// Where threads leave what they found.
private final class Results: Sendable {
    private let state: Mutex<(LoadReport, LoadError?)>

    init(seed: UInt64) {
        state = Mutex((LoadReport(seed: seed), nil))
    }

    func add(_ report: LoadReport) { state.withLock { $0.0.add(report) } }

    func fail(_ error: LoadError) { state.withLock { $0.1 = $0.1 ?? error } }

    func value() throws(LoadError) -> LoadReport {
        let (report, error) = state.withLock { $0 }
        if let error { throw error }
        return report
    }
}
