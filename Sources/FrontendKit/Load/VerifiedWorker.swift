internal import Platform

/// One thread of a verifying load: plans requests, keeps its queues full, checks what comes back.
struct VerifiedWorker: ~Copyable {
    private let options: VerifiedLoad.Options
    private let firstQueue: Int
    private let monitor: LoadMonitor
    private let poller: Poller
    private var lanes: OwnedArray<VerifiedLane>
    private var model: DiskModel
    private var random: SeededGenerator
    private var report: LoadReport
    private var outstanding = 0
    private var submitted = 0
    /// Numbers the writes.
    private var sequence: UInt64 = 0
    /// When anything completed last, or the first request after a time without any was submitted.
    private var lastProgress: UInt64 = 0
    /// The next sector of the sweep at the end; nil before it.
    private var sweep: UInt64?

    init(
        _ endpoints: [QueueEndpoint], usesEventIndex: Bool, options: VerifiedLoad.Options, firstQueue: Int = 0,
        monitor: LoadMonitor, in allocator: inout GuestAllocator
    ) throws(LoadError) {
        poller = try makePoller(endpoints)
        self.options = options
        self.firstQueue = firstQueue
        self.monitor = monitor
        lanes = OwnedArray(count: endpoints.count) { index in
            VerifiedLane(endpoints[index], usesEventIndex: usesEventIndex, options: options, in: &allocator)
        }
        model = DiskModel(sectors: options.sectors, initially: options.initialContent)
        random = SeededGenerator(seed: options.seed)
        report = LoadReport(seed: options.seed)
    }

    /// Runs to the end of the load.
    mutating func run() throws(LoadError) -> LoadReport {
        let start = monotonicNanoseconds()
        let end = options.timeLimit.map { start + UInt64($0) * 1_000_000 } ?? .max
        while !monitor.isStopRequested, !isLimitReached, monotonicNanoseconds() < end {
            try turn()
        }
        try drain()
        if options.sweepsAtEnd {
            monitor.sweepBegins()
            sweep = options.sectors.lowerBound
            while let place = sweep, place < options.sectors.upperBound { try turn() }
            try drain()
        }
        report.nanoseconds = monotonicNanoseconds() - start
        return report
    }

    private var isLimitReached: Bool {
        options.requestLimit.map { submitted >= $0 } ?? false
    }

    // MARK: Loop

    /// Fills the queues, takes what has completed, and waits if that was nothing.
    private mutating func turn() throws(LoadError) {
        for index in 0..<lanes.count { fill(index) }
        if try takeCompletions() == 0, outstanding > 0 { try wait() }
    }

    private mutating func drain() throws(LoadError) {
        while outstanding > 0 {
            if try takeCompletions() == 0 { try wait() }
        }
    }

    private mutating func fill(_ index: Int) {
        var count = 0
        while lanes[index].hasRoom, sweep != nil || !isLimitReached, let plan = nextPlan() {
            let now = monotonicNanoseconds()
            if outstanding == 0 { lastProgress = now }
            var request = plan
            request.submitted = now
            request.queue = UInt64(firstQueue + index)
            begin(&request)
            lanes[index].submit(request, seed: options.seed, random: &random)
            outstanding += 1
            submitted += 1
            count += 1
        }
        guard count > 0 else { return }
        lanes[index].queue.publish()
        monitor.add(published: count)
    }

    private mutating func takeCompletions() throws(LoadError) -> Int {
        var count = 0
        for index in 0..<lanes.count {
            do throws(QueueViolation) {
                while let (request, completion) = try lanes[index].nextCompletion(seed: options.seed) {
                    finish(request, completion, lane: index)
                    count += 1
                }
            } catch {
                throw .violation(error, queue: firstQueue + index)
            }
        }
        if count > 0 {
            notePause(until: monotonicNanoseconds())
            outstanding -= count
            monitor.add(count)
        }
        return count
    }

    private mutating func notePause(until now: UInt64) {
        report.longestPause = max(report.longestPause, now - lastProgress)
        monitor.note(pause: now - lastProgress)
        lastProgress = now
    }

    // MARK: Waiting

    private mutating func wait() throws(LoadError) {
        if options.usesInterrupts { sleepUntilInterrupt() }
        let pause = monotonicNanoseconds() - lastProgress
        guard pause < UInt64(options.stallLimit) * 1_000_000 else {
            throw .stalled(outstanding: outstanding, milliseconds: options.stallLimit)
        }
    }

    /// Sleeps until a queue interrupts. A completion that lies there after a wait without an interrupt was not
    /// announced.
    private mutating func sleepUntilInterrupt() {
        var mustWait = true
        for index in 0..<lanes.count where !lanes[index].queue.requestInterrupt() { mustWait = false }
        if mustWait, poller.wait(milliseconds: 250) == 0, hasCompletion, poller.wait(milliseconds: 1000) == 0 {
            report.missedInterrupts += 1
        }
        for index in 0..<lanes.count { lanes[index].queue.silenceInterrupts() }
    }

    private var hasCompletion: Bool {
        for index in 0..<lanes.count where lanes[index].queue.driver.hasCompletion { return true }
        return false
    }

    // MARK: Planning

    /// The next request, or nil when everything that chance suggests would meet what is in flight.
    private mutating func nextPlan() -> LoadRequest? {
        if let place = sweep { return nextOfSweep(from: place) }
        let operation = nextOperation()
        if operation == .flush { return LoadRequest(operation: .flush, sectors: 0..<0) }
        if let plan = place(operation) { return plan }
        // With nothing in flight a read is always possible, and settles what keeps writes away.
        return outstanding == 0 ? place(.read) : nil
    }

    private mutating func nextOfSweep(from place: UInt64) -> LoadRequest? {
        guard place < options.sectors.upperBound else { return nil }
        let end = min(place + options.blockSectors * options.maximumBlocks, options.sectors.upperBound)
        sweep = end
        return LoadRequest(operation: .read, sectors: place..<end)
    }

    private mutating func nextOperation() -> LoadOperation {
        var draw = random.next(below: options.weights.reduce(0, +))
        for operation in LoadOperation.allCases {
            let weight = options.weights[operation.rawValue]
            if draw < weight { return operation }
            draw -= weight
        }
        return .read
    }

    private mutating func place(_ operation: LoadOperation) -> LoadRequest? {
        let size = options.blockSectors
        let blocks = (options.sectors.upperBound - options.sectors.lowerBound) / size
        for _ in 0..<8 {
            let count = 1 + random.next(below: min(options.maximumBlocks, blocks))
            let first = options.sectors.lowerBound + random.next(below: blocks - count + 1) * size
            let range = first..<first + count * size
            if model.mayBegin(range, writes: operation != .read, overlapping: options.overlapping) {
                return LoadRequest(operation: operation, sectors: range)
            }
        }
        return nil
    }

    // MARK: Model

    private mutating func begin(_ request: inout LoadRequest) {
        switch request.operation {
        case .flush:
            break
        case .read:
            request.readStarted = model.beginRead(request.sectors)
        case .write, .discard, .writeZeroes:
            sequence += 1
            request.sequence = sequence
            let value = request.operation == .write ? SectorValue.write(sequence: sequence) : .zeros
            model.beginWrite(request.sectors, value, id: sequence)
        }
    }

    private mutating func finish(_ request: LoadRequest, _ completion: BlockCompletion, lane: Int) {
        let succeeded = completion.status == .ok
        let now = monotonicNanoseconds()
        monitor.completed(requestOf: request.submitted, at: now)
        report[request.operation].requests += 1
        report[request.operation].latency.record(now - request.submitted)
        if !succeeded { report[request.operation].errors += 1 }
        switch request.operation {
        case .flush:
            break
        case .read:
            if succeeded { check(request, lane: lane) }
            model.endRead(request.sectors)
        case .write, .writeZeroes:
            model.endWrite(request.sectors, id: request.sequence, certain: succeeded)
        case .discard:
            model.endWrite(request.sectors, id: request.sequence, certain: false)
        }
    }

    private mutating func check(_ request: LoadRequest, lane: Int) {
        for (offset, sector) in request.sectors.enumerated() {
            let content = lanes[lane].sector(offset, of: request)
            let mismatch: MismatchKind?
            if let content {
                mismatch = model.check(sector, content, readStarted: request.readStarted, seed: options.seed)
            } else {
                mismatch = .notRead
            }
            guard let mismatch else { continue }
            let expected = model.expectation(of: sector)
            let former = lanes[lane].former(offset, of: request)
            report.count(
                mismatch,
                "\(mismatch): sector \(sector), read on queue \(request.queue), holds "
                    + "\(content.map { "\($0)" } ?? "what was in the buffer before (\(former))") instead of \(expected)"
            )
        }
    }
}

/// Watches the call eventfds. Edge-triggered: they need not be read.
private func makePoller(_ endpoints: [QueueEndpoint]) throws(LoadError) -> Poller {
    do throws(Errno) {
        let poller = try Poller()
        for (index, endpoint) in endpoints.enumerated() {
            try poller.watch(endpoint.call.fd.number, token: UInt64(index), edge: true)
        }
        return poller
    } catch {
        throw .system(SystemError(cannot: "watch", "the call eventfds", error))
    }
}
