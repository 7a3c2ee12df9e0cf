public import CWire
internal import Platform
internal import Synchronization

// What loops and queues show of themselves while they run, at the cost of a store each time: the record has it, so that
// the supervisor sees who goes on and who does not, without asking.

/// One loop, as others see it.
public struct LoopSight: Hashable, Sendable {
    /// Rounds that it has made.
    public var turns: UInt64
    /// It sleeps until a kick, a completion or a command comes.
    public var isResting: Bool
    public var handling: HandledRequest?
    /// The worker's number of the epoll descriptor in which it sleeps; nil: not known.
    public var poller: Int32?
}

extension SessionRecord {
    func loopOffset(_ ring: Int) -> Int {
        precondition(ring >= 0 && ring < WIRE_RECORD_MAX_RINGS.asInt)
        return WIRE_RECORD_FIRST_LOOP.asInt + ring * MemoryLayout<wire_record_loop>.size
    }

    /// A loop that has not begun.
    func clearLoop(_ ring: Int) {
        let loop = unsafe (mapping.base + loopOffset(ring)).assumingMemoryBound(to: wire_record_loop.self)
        unsafe loop.pointee.resting = 1
        unsafe loop.pointee.handling = 0
        unsafe loop.pointee.poller = 0
    }

    /// How a loop is at this moment.
    public func loop(_ ring: Int) -> LoopSight {
        let offset = loopOffset(ring)
        let mark = unsafe atomic32(offset + 8).pointee.load(ordering: .relaxed)
        let poller = Int32(bitPattern: unsafe atomic32(offset + 16).pointee.load(ordering: .relaxed))
        return unsafe LoopSight(
            turns: atomic64(offset).pointee.load(ordering: .acquiring),
            isResting: atomic32(offset + 12).pointee.load(ordering: .relaxed) != 0,
            handling: HandledRequest(mark: mark), poller: poller > 0 ? poller - 1 : nil)
    }
}

/// What a loop shows of itself. Belongs to the loop's thread.
@safe public struct LoopAccount: ~Copyable, @unchecked Sendable {
    @usableFromInline let base: UnsafeMutableRawPointer
    @usableFromInline var turns: UInt64
    private let record: SessionRecord?

    /// - Parameters:
    ///   - record: nil: nobody looks.
    ///   - ring: the loop's, 0 to 15.
    ///   - poller: the number of the epoll descriptor in which it will sleep.
    public init(_ record: SessionRecord?, ring: Int, poller: Int32) {
        self.record = record
        if let record {
            unsafe base = record.mapping.base + record.loopOffset(ring)
        } else {
            unsafe base = .allocate(byteCount: 64, alignment: 64)
            unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
        }
        turns = unsafe wire_load64(base)
        unsafe wire_store32(base + 16, UInt32(bitPattern: poller) &+ 1)
    }

    deinit {
        if record == nil { unsafe base.deallocate() }
    }

    /// A round begins.
    @inlinable
    @inline(__always)
    public mutating func turn() {
        turns &+= 1
        unsafe wire_store64(base, turns)
    }

    /// It sleeps until something wakes it (`true`), or is awake.
    public func rest(_ isResting: Bool) { unsafe wire_store32(base + 12, isResting ? 1 : 0) }
}

/// What a queue shows of itself: which request its loop handles, and how many it has returned. Belongs to the thread
/// that serves it.
///
/// **Order of stores**: `handle` before a request is looked at; `publish` after the guest was shown what is returned.
/// `handleNothing` comes once for a batch: between two requests of a batch the last one is named still. A worker that
/// dies there blames an innocent request, once; its successor takes that one from the log and comes to the same point
/// by another way, so nobody blames it twice.
@safe public struct QueueAccount: ~Copyable {
    @usableFromInline let handling: UnsafeMutableRawPointer
    @usableFromInline let statistics: UnsafeMutableRawPointer
    @usableFromInline let firstMark: UInt32
    /// Requests returned.
    @usableFromInline var returned: UInt64
    private let record: SessionRecord?

    /// Nobody looks.
    public static var none: QueueAccount { QueueAccount() }

    private init() {
        record = nil
        firstMark = 1
        returned = 0
        unsafe statistics = .allocate(byteCount: 64, alignment: 64)
        unsafe handling = unsafe statistics + 32
    }

    /// Takes up the account of a queue.
    ///
    /// - Parameter ring: of the loop that serves it.
    public init(_ record: SessionRecord, queue: Int, ring: Int) {
        let offset = record.geometry.statisticsOffset(queue: queue)
        self.record = record
        firstMark = HandledRequest(queue: queue, slot: 0).mark
        unsafe statistics = record.mapping.base + offset
        unsafe handling = record.mapping.base + record.loopOffset(ring) + 8
        returned = unsafe wire_load64(statistics)
    }

    deinit {
        if record == nil { unsafe statistics.deallocate() }
    }

    /// A request is about to be handled.
    @inlinable
    @inline(__always)
    public func handle(_ slot: UInt16) { unsafe wire_store32(handling, firstMark &+ UInt32(slot)) }

    /// What comes is no request's doing.
    @inlinable
    @inline(__always)
    public func handleNothing() { unsafe wire_store32(handling, 0) }

    /// A request has been returned, and will be published.
    @inlinable
    @inline(__always)
    public mutating func giveBack() { returned &+= 1 }

    /// What was returned has been published.
    @inlinable
    @inline(__always)
    public func publish() { unsafe wire_store64(statistics, returned) }
}
