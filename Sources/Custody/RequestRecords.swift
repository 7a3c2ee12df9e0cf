public import CWire

/// How far an operation had come when its record was written: what a successor needs to go on with its request.
public struct RequestProgress: Hashable, Sendable {
    /// Bytes done before the operation: of the transfer, or of the range at hand.
    public var done: UInt64
    /// The rest, packed by the device.
    public var state: UInt64

    @inlinable
    public init(done: UInt64, state: UInt64) {
        self.done = done
        self.state = state
    }
}

/// The request records of one queue: which operation the kernel has of each request. The inflight log says that a
/// request is in flight; its record says what became of it.
///
/// **Order of stores**:
///
/// 1. `begin`, before the inflight log has the request: `issued = 0`;
/// 2. `issue`, after the operation was written to the submission queue and before the kernel is shown it: the progress
///    that the new sequence names, then `operation`, then `issued`. A later step of the same request differs from the
///    first in nothing, so that one store, of `operation`, replaces step by step; the completion of the step before is
///    still in the completion queue then.
@safe public struct RequestRecords: ~Copyable {
    /// nil: nobody keeps records.
    @usableFromInline let base: UnsafeMutableRawPointer?
    private let record: SessionRecord?
    @usableFromInline let size: Int
    /// The worker's number; bit 63 marks operations that the kernel is known to have.
    @usableFromInline let generation: UInt64

    @usableFromInline static var startedBit: UInt64 { 1 << 63 }

    /// No records: every call does nothing.
    public static var none: RequestRecords { RequestRecords() }

    private init() {
        unsafe base = nil
        record = nil
        size = 0
        generation = 0
    }

    /// Takes up the records of a queue.
    ///
    /// - Parameters:
    ///   - size: of the ring; no more than the record has room for.
    ///   - generation: the number of this worker.
    public init(_ record: SessionRecord, queue: Int, size: Int, generation: UInt64) {
        precondition(size <= record.geometry.queueSize, "the record is too small for the ring")
        self.record = record
        self.size = size
        self.generation = generation
        unsafe base = record.requestRecords(queue: queue)
    }

    /// Takes up records that are not a device's: in memory of a simulation.
    ///
    /// - Parameter base: 64 bytes for each slot, 8-aligned, zero at first; they stay where they are while this lives.
    public init(at base: UnsafeMutableRawPointer, size: Int, generation: UInt64) {
        unsafe self.base = base
        record = nil
        self.size = size
        self.generation = generation
    }

    /// Whether records are kept.
    @inlinable public var isKept: Bool { unsafe base != nil }

    @inlinable
    @inline(__always)
    func entry(_ slot: UInt16) -> UnsafeMutableRawPointer {
        precondition(Int(slot) < size)
        return unsafe base! + 64 * Int(slot)
    }

    /// A request is about to be logged: what the record says is of an earlier one.
    @inlinable
    @inline(__always)
    public func begin(_ slot: UInt16) {
        guard isKept else { return }
        unsafe wire_store64(entry(slot) + 8, 0)
    }

    /// An operation has been written to the submission queue.
    ///
    /// - Parameters:
    ///   - sequence: of its token; one more than that of the slot's operation before.
    ///   - index: where it is in the submission queue.
    @inlinable
    @inline(__always)
    public func issue(_ slot: UInt16, sequence: UInt32, index: UInt32, _ progress: RequestProgress) {
        guard isKept else { return }
        let entry = unsafe entry(slot)
        let cell = unsafe entry + 16 + 16 * Int(sequence & 1)
        unsafe wire_store64(cell, progress.done)
        unsafe wire_store64(cell + 8, progress.state)
        unsafe wire_store64(entry, UInt64(sequence) << 32 | UInt64(index))
        unsafe wire_store64(entry + 8, generation)
    }

    /// What a record says.
    public struct Entry: Sendable {
        /// Of the last operation; the next one continues from it.
        public var sequence: UInt32
        /// Where the operation is in the submission queue.
        public var index: UInt32
        /// An operation was issued for the request that the inflight log has.
        public var isIssued: Bool
        /// The kernel is known to have taken it: this worker issued it, or one before has adopted it.
        public var isKnownStarted: Bool
        public var progress: RequestProgress
    }

    /// Reads a record.
    public func entry(of slot: UInt16) -> Entry {
        let entry = unsafe entry(slot)
        let operation = unsafe wire_load64(entry)
        let issued = unsafe wire_load64(entry + 8)
        let sequence = UInt32(truncatingIfNeeded: operation >> 32)
        let cell = unsafe entry + 16 + 16 * Int(sequence & 1)
        return Entry(
            sequence: sequence, index: UInt32(truncatingIfNeeded: operation), isIssued: issued != 0,
            isKnownStarted: issued & Self.startedBit != 0 || issued == generation,
            progress: RequestProgress(done: unsafe wire_load64(cell), state: unsafe wire_load64(cell + 8)))
    }

    /// The kernel has the operation of an earlier worker: whoever comes next need not compare submission queue indices.
    public func markStarted(_ slot: UInt16) {
        unsafe wire_store64(entry(slot) + 8, generation | Self.startedBit)
    }
}

// MARK: - Requests over which workers die

extension RequestRecords {
    /// How many workers have died by their own fault while they handled a request.
    ///
    /// - Parameter counter: of the request, in the inflight log: what is known of an earlier one in its slot is not of
    ///   this one.
    public func strikes(_ slot: UInt16, counter: UInt64) -> Int {
        let entry = unsafe entry(slot)
        guard unsafe wire_load64(entry + 48) == counter else { return 0 }
        return Int(unsafe wire_load64(entry + 56) & 0xff)
    }

    /// A worker has died over a request. Doing it twice for the same worker, or dying within it, changes nothing.
    ///
    /// - Parameter generation: of the worker that has died.
    public func strike(_ slot: UInt16, counter: UInt64, generation: UInt64) {
        let entry = unsafe entry(slot)
        let before = strikes(slot, counter: counter)
        if before > 0, unsafe wire_load64(entry + 56) >> 8 == generation { return }
        if before == 0 {
            unsafe wire_store64(entry + 56, 0)
            unsafe wire_store64(entry + 48, counter)
        }
        unsafe wire_store64(entry + 56, generation << 8 | UInt64(min(before + 1, 255)))
    }

    /// What becomes of a request that a worker before has left.
    public enum Verdict: Sendable {
        case goesOn
        /// It is answered with an error; `isNew`: for the first time.
        case isGivenUp(isNew: Bool)
        /// Not even that: it stays in flight, untouched.
        case isSetAside
    }

    /// So many workers die over one request; then it is answered with an error.
    private static var deathsUntilGivenUp: Int { 2 }

    /// Decides what becomes of a request. One is blamed that was being handled when a worker died by its own fault; one
    /// that is blamed again is answered with an error. Finding the place for that answer is handling, too: if it is
    /// blamed for that as well, it is left alone for good.
    ///
    /// - Parameters:
    ///   - counter: of the request, in the inflight log.
    ///   - suspect: what the worker before was handling when it died by its own fault; nil: nothing.
    public func judge(_ request: HandledRequest, counter: UInt64, _ suspect: Suspect?) -> Verdict {
        let before = strikes(request.slot, counter: counter)
        if let suspect, suspect.request == request {
            strike(request.slot, counter: counter, generation: suspect.generation)
        }
        let now = strikes(request.slot, counter: counter)
        if now > Self.deathsUntilGivenUp { return .isSetAside }
        return now == Self.deathsUntilGivenUp ? .isGivenUp(isNew: before < now) : .goesOn
    }

    /// The request that the slot may have had is no more: counters begin anew when a log is taken up, and another
    /// request could get its.
    public func forgive(_ slot: UInt16) {
        let entry = unsafe entry(slot)
        if unsafe wire_load64(entry + 56) != 0 { unsafe wire_store64(entry + 56, 0) }
    }
}
