public import CWire
public import Platform

/// The kinds of requests that are counted. The first three are timed, too.
public enum RequestKind: UInt8, Sendable, CaseIterable {
    case read = 0
    case write = 1
    case flush = 2
    case identify = 3
    case discard = 4
    case writeZeroes = 5
    /// WRITE_ZEROES that may free the space.
    case writeZeroesUnmapping = 6
    /// Not carried out: malformed, or nothing that this disk does.
    case refused = 7
}

/// What a shared directory counts in the places that a disk has other kinds in. Its reads, writes and what makes data
/// durable are the first three, as a disk's.
extension RequestKind {
    /// LOOKUP, GETATTR, READDIR and their like.
    public static var lookup: RequestKind { .identify }
    /// Changes of names.
    public static var change: RequestKind { .discard }
    /// Opening and closing.
    public static var open: RequestKind { .writeZeroes }
    /// Attributes, locks and space.
    public static var attribute: RequestKind { .writeZeroesUnmapping }
    /// Everything else, and what is malformed.
    public static var other: RequestKind { .refused }
}

/// Counts what one queue does. Belongs to the thread that serves the queue; allocates nothing.
///
/// Each slot has a word: when its request was taken, in nanoseconds of CLOCK_MONOTONIC, shifted left by one, and bit 0:
/// it was counted. A word that is not 0 and not counted is a request in flight, so that others see how many there are
/// and since when.
///
/// **The order of stores**, so that no death counts a request twice:
///
/// 1. `take`: the word, before the inflight log has the request. A successor that finds the request in the log finds
///    its word; it keeps it, so a request that outlives its worker took as long as its guest has waited.
/// 2. `giveBack`, before the guest is shown it: bit 0, then the counts, then the run. A successor that carries the
///    request out again finds bit 0 and does not count it again. A death between these stores loses what is left of
///    this one request.
/// 3. `publish`, after the guest was shown it: of each run, the number goes to 0, then the histogram has it. A death
///    between these two stores loses the latencies of one run. Runs that no publication followed are taken up by the
///    successor, whose publication it is.
///
/// The clock is read once for each batch that is taken and once for each that is returned.
@safe public struct QueueMeter: ~Copyable, @unchecked Sendable {
    @usableFromInline let block: UnsafeMutableRawPointer
    @usableFromInline let words: UnsafeMutableRawPointer
    /// For each kind that is timed, the run that was added to last.
    @usableFromInline var tails: InlineArray<3, UnsafeMutableRawPointer>
    /// When the batch at hand was taken, as a word.
    @usableFromInline var taken: UInt64 = 0
    @usableFromInline var hasRuns = false
    private let statistics: DeviceStatistics
    private let queue: Int

    @usableFromInline static var kindBytes: Int { MemoryLayout<wire_statistics_kind>.size }
    @usableFromInline static var runBytes: Int { MemoryLayout<wire_statistics_run>.size }
    @usableFromInline static var runsBytes: Int { Int(WIRE_STATISTICS_RUNS) * runBytes }

    /// Takes up the counts of a queue. What the worker before had in its runs is settled now.
    ///
    /// - Parameter slots: of the queue's ring, at most the statistics' `queueSize`.
    public init(_ statistics: DeviceStatistics, queue: Int, slots: Int) {
        precondition(slots <= statistics.queueSize)
        self.statistics = statistics
        self.queue = queue
        unsafe block = statistics.block(of: queue)
        unsafe words = unsafe block + DeviceStatistics.queueBytes
        let first = unsafe block + Int(WIRE_STATISTICS_FIRST_RUN)
        unsafe tails = [first, first + Self.runsBytes, first + 2 * Self.runsBytes]
        // Those that the worker before held are tried again now.
        setHeld(0)
        for place in 0..<3 * Int(WIRE_STATISTICS_RUNS) {
            unsafe settle(first + place * Self.runBytes, place / Int(WIRE_STATISTICS_RUNS), monotonicNanoseconds())
        }
    }

    /// Keeps the words of requests that a worker before has left in flight; those of all other slots are of the past.
    public func keepWords(of slots: [UInt16]) {
        let kept = Set(slots)
        let now = monotonicNanoseconds() << 1
        for slot in 0..<statistics.queueSize {
            let word = unsafe words + 8 * slot
            let isKept = UInt16(exactly: slot).map { kept.contains($0) } ?? false
            // One that a worker left which did not count.
            if isKept, unsafe wire_load64(word) == 0 { unsafe wire_store64(word, now) }
            if !isKept, unsafe wire_load64(word) != 0 { unsafe wire_store64(word, 0) }
        }
    }

    /// Requests are about to be taken.
    @inlinable
    @inline(__always)
    public mutating func beginBatch() { taken = monotonicNanoseconds() << 1 }

    /// A request was taken, and is not logged yet.
    @inlinable
    @inline(__always)
    public func take(_ slot: UInt16) { unsafe wire_store64(words + 8 * Int(slot), taken) }

    /// A request has been returned, and will be published.
    ///
    /// - Parameter bytes: that it has moved, discarded or zeroed; counted when it succeeded.
    @inlinable
    @inline(__always)
    public mutating func giveBack(_ slot: UInt16, _ kind: UInt8, bytes: UInt64, isError: Bool) {
        let place = unsafe words + 8 * Int(slot)
        let word = unsafe wire_load64(place)
        guard word & 1 == 0 else { return }
        // Sets bit 0, in one instruction.
        unsafe wire_store64(place, wire_load64(place) &+ 1)
        let row = unsafe block + Int(kind & 7) * Self.kindBytes
        unsafe wire_store64(row, wire_load64(row) &+ 1)
        if isError {
            unsafe wire_store64(row + 16, wire_load64(row + 16) &+ 1)
        } else {
            unsafe wire_store64(row + 8, wire_load64(row + 8) &+ bytes)
        }
        guard kind < 3 else { return }
        let run = unsafe tails[Int(kind)]
        if unsafe wire_load64(run) == word {
            unsafe wire_store64(run + 8, wire_load64(run + 8) &+ 1)
        } else {
            beginRun(Int(kind), word)
        }
    }

    /// A request that is not carried out has been returned, and will be published.
    ///
    /// - Parameter isMalformed: it makes no sense; else this disk does nothing of the kind.
    public mutating func refuse(_ slot: UInt16, isMalformed: Bool) {
        let isCounted = unsafe wire_load64(words + 8 * Int(slot)) & 1 != 0
        giveBack(slot, RequestKind.refused.rawValue, bytes: 0, isError: true)
        if isMalformed, !isCounted { unsafe add(1, to: block + Int(WIRE_STATISTICS_MALFORMED)) }
    }

    /// Begins another run of a kind.
    @usableFromInline
    mutating func beginRun(_ kind: Int, _ word: UInt64) {
        let last = unsafe firstRun(kind) + (Self.runsBytes - Self.runBytes)
        if unsafe tails[kind] == last { settleRuns() }
        if unsafe wire_load64(tails[kind] + 8) > 0 { unsafe tails[kind] += Self.runBytes }
        unsafe wire_store64(tails[kind], word)
        unsafe wire_store64(tails[kind] + 8, 1)
        hasRuns = true
    }

    private func firstRun(_ kind: Int) -> UnsafeMutableRawPointer {
        unsafe block + Int(WIRE_STATISTICS_FIRST_RUN) + kind * Self.runsBytes
    }

    private func firstBucket(_ kind: Int) -> UnsafeMutableRawPointer {
        unsafe block + Int(WIRE_STATISTICS_FIRST_BUCKET) + kind * 8 * LatencyBuckets.count
    }

    /// The guest has been shown what was returned.
    @inlinable
    @inline(__always)
    public mutating func publish() {
        if hasRuns { settleRuns() }
    }

    /// Moves the runs to the histograms: their requests have taken until now.
    @usableFromInline
    mutating func settleRuns() {
        let now = monotonicNanoseconds()
        for kind in 0..<3 {
            var run = unsafe firstRun(kind)
            while unsafe run <= tails[kind] {
                unsafe settle(run, kind, now)
                unsafe run += Self.runBytes
            }
            unsafe tails[kind] = firstRun(kind)
        }
        hasRuns = false
    }

    private func settle(_ run: UnsafeMutableRawPointer, _ kind: Int, _ now: UInt64) {
        let (word, count) = unsafe (wire_load64(run), wire_load64(run + 8))
        if count > 0 {
            unsafe wire_store64(run + 8, 0)
            let start = word >> 1
            // 0: of a queue whose driver has gone meanwhile.
            if start > 0 {
                let latency = now > start ? now - start : 0
                let bucket = unsafe firstBucket(kind) + 8 * LatencyBuckets.bucket(of: latency)
                unsafe add(count, to: bucket)
                unsafe add(count &* latency, to: block + kind * Self.kindBytes + 24)
            }
        }
        if word != 0 { unsafe wire_store64(run, 0) }
    }

    @usableFromInline
    func add(_ count: UInt64, to place: UnsafeMutableRawPointer) {
        unsafe wire_store64(place, wire_load64(place) &+ count)
    }

    // MARK: What has no slot

    /// A request that no slot was given for was returned, and published: the guest named one that cannot be.
    public func countUnusable() {
        let row = unsafe block + Int(RequestKind.refused.rawValue) * Self.kindBytes
        unsafe add(1, to: row)
        unsafe add(1, to: row + 16)
        unsafe add(1, to: block + Int(WIRE_STATISTICS_MALFORMED))
    }

    /// The guest was interrupted.
    @inlinable
    public func countInterrupt() { unsafe add(1, to: block + Int(WIRE_STATISTICS_INTERRUPTS)) }

    /// When the batch at hand was taken, in nanoseconds of CLOCK_MONOTONIC.
    public var batchTime: UInt64 { taken >> 1 }

    /// Requests were there and had to wait for a limit.
    public func countThrottled(nanoseconds: UInt64) {
        unsafe add(nanoseconds, to: block + Int(WIRE_STATISTICS_THROTTLED))
    }

    /// So many requests wait for room on the host.
    public func setHeld(_ count: Int) { unsafe wire_store64(block + Int(WIRE_STATISTICS_HELD), UInt64(max(0, count))) }

    /// A completion came that matches no request.
    public func countStaleCompletion() { unsafe add(1, to: block + Int(WIRE_STATISTICS_STALE)) }

    /// What this queue has counted since its device was made.
    public var counts: QueueCounts { statistics.counts(of: queue) }
}
