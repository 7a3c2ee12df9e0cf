internal import CLinux
internal import CWire
internal import Glibc
internal import Platform
internal import Synchronization

// What the record says of each worker's time with the device, so that others know how it ended when another has the
// device already: what it has returned, and which signal ended it while it handled which request.

/// A request that a loop handles.
public struct HandledRequest: Hashable, Sendable {
    public var queue: Int
    /// In a split ring the head of its chain.
    public var slot: UInt16

    public init(queue: Int, slot: UInt16) {
        self.queue = queue
        self.slot = slot
    }

    /// - Parameter mark: as the record has it; nil when it names none.
    init?(mark: UInt32) {
        guard mark != 0 else { return nil }
        self.init(queue: Int((mark - 1) >> 16), slot: UInt16(truncatingIfNeeded: mark - 1))
    }

    var mark: UInt32 { UInt32(truncatingIfNeeded: queue) << 16 &+ UInt32(slot) &+ 1 }
}

/// A request over which a worker has died by its own fault.
public struct Suspect: Hashable, Sendable {
    public var request: HandledRequest
    /// Of the worker that has died.
    public var generation: UInt64

    public init(_ request: HandledRequest, generation: UInt64) {
        self.request = request
        self.generation = generation
    }
}

/// One worker's time with the device.
public struct WorkerLife: Hashable, Sendable {
    /// The number under which it had the device.
    public var generation: UInt64
    /// Requests that it has returned; nil: that is not known any more.
    public var returned: UInt64?
    /// The signal that ended it by its own fault; 0: none did.
    public var fatalSignal: Int32
    /// The number of the system call that it tried and was forbidden, if that ended it.
    public var forbiddenCall: Int32?
    /// The supervisor has killed it because a loop went on no more.
    public var isHung: Bool
    /// What the thread handled that was at fault.
    public var handling: HandledRequest?
}

extension SessionRecord {
    private func lifeOffset(_ generation: UInt64) -> Int {
        WIRE_RECORD_FIRST_LIFE.asInt + Int(generation % UInt64(WIRE_RECORD_LIVES.asInt))
            * MemoryLayout<wire_record_life>.size
    }

    private func life(at offset: Int) -> UnsafeMutablePointer<wire_record_life> {
        unsafe (mapping.base + offset).assumingMemoryBound(to: wire_record_life.self)
    }

    /// A worker is about to claim the device. Nobody looks at what is written before `generation` is.
    func beginLife(_ generation: UInt64, process: Int32) {
        let offset = lifeOffset(generation)
        let life = unsafe life(at: offset)
        unsafe atomic64(offset).pointee.store(0, ordering: .releasing)
        unsafe life.pointee.returned_before = returnedCount
        unsafe life.pointee.fatal_address = 0
        unsafe life.pointee.fatal_signal = 0
        unsafe life.pointee.handling = 0
        unsafe life.pointee.process = UInt32(bitPattern: process)
        unsafe life.pointee.hung = 0
        unsafe atomic64(offset).pointee.store(generation, ordering: .releasing)
    }

    /// What is known of a generation; nil: it has been forgotten, or has never begun.
    public func life(of generation: UInt64) -> WorkerLife? {
        let offset = lifeOffset(generation)
        guard generation > 0, unsafe atomic64(offset).pointee.load(ordering: .acquiring) == generation else {
            return nil
        }
        let copy = unsafe life(at: offset).pointee
        return WorkerLife(
            generation: generation, returned: returned(by: generation, since: copy.returned_before),
            fatalSignal: Int32(bitPattern: copy.fatal_signal), forbiddenCall: Self.forbiddenCall(copy),
            isHung: copy.hung != 0,
            handling: HandledRequest(mark: copy.handling))
    }

    private static func forbiddenCall(_ life: wire_record_life) -> Int32? {
        guard life.fatal_signal == UInt32(SIGSYS), life.fatal_address > 0 else { return nil }
        return Int32(exactly: life.fatal_address - 1)
    }

    private func returned(by generation: UInt64, since before: UInt64) -> UInt64? {
        if generation == lastGeneration { return returnedCount &- before }
        // A worker may have written any number.
        let next = lifeOffset(generation &+ 1)
        guard unsafe atomic64(next).pointee.load(ordering: .acquiring) == generation &+ 1 else { return nil }
        return unsafe life(at: next).pointee.returned_before &- before
    }

    /// The last time that a process had the device; nil: it never had, or that is forgotten.
    public func life(ofProcess process: Int32) -> WorkerLife? {
        var last: UInt64 = 0
        for number in 0..<UInt64(WIRE_RECORD_LIVES.asInt) {
            let life = unsafe life(at: lifeOffset(number)).pointee
            if life.process == UInt32(bitPattern: process) { last = max(last, life.generation) }
        }
        return life(of: last)
    }

    /// The supervisor is about to kill the worker of a generation: one of its loops goes on no more.
    ///
    /// - Parameter handling: what that loop handles.
    public func noteHang(_ generation: UInt64, handling: HandledRequest?) {
        let life = unsafe life(at: lifeOffset(generation))
        guard unsafe life.pointee.generation == generation else { return }
        unsafe life.pointee.handling = handling?.mark ?? 0
        unsafe life.pointee.hung = 1
    }

    /// Makes the handler of fatal signals write to the life of this worker, from now on.
    ///
    /// - Parameter generation: the caller's; nil: it has the device no more.
    public func noteFatalSignals(_ generation: UInt64?) {
        guard let generation else {
            clinux_fatal_note_at(nil)
            return
        }
        let life = unsafe mapping.base + lifeOffset(generation)
        typealias Life = wire_record_life
        typealias Loop = wire_record_loop
        var places = unsafe clinux_fatal_places(
            signal: (life + MemoryLayout<Life>.offset(of: \.fatal_signal)!).assumingMemoryBound(to: UInt32.self),
            handling: (life + MemoryLayout<Life>.offset(of: \.handling)!).assumingMemoryBound(to: UInt32.self),
            address: (life + MemoryLayout<Life>.offset(of: \.fatal_address)!).assumingMemoryBound(to: UInt64.self),
            threads: UnsafePointer(
                (mapping.base + WIRE_RECORD_OWNER_THREADS.asInt).assumingMemoryBound(to: UInt32.self)),
            handlings: mapping.base + WIRE_RECORD_FIRST_LOOP.asInt + MemoryLayout<Loop>.offset(of: \.handling)!,
            stride: MemoryLayout<Loop>.size, count: UInt32(WIRE_RECORD_MAX_RINGS.asInt))
        unsafe clinux_fatal_note_at(&places)
    }

    /// Requests returned since the device was made.
    public var returnedCount: UInt64 {
        (0..<geometry.queueCount).reduce(0) { sum, queue in
            sum &+ (unsafe atomic64(geometry.statisticsOffset(queue: queue)).pointee.load(ordering: .relaxed))
        }
    }

    /// Requests that were answered with an error because workers had died over them.
    public var givenUpCount: UInt64 {
        unsafe atomic64(WIRE_RECORD_GIVEN_UP.asInt).pointee.load(ordering: .relaxed)
    }

    /// A worker gives requests up. For who has the device.
    public func noteGivenUp(_ count: Int) {
        unsafe atomic64(WIRE_RECORD_GIVEN_UP.asInt).pointee.wrappingAdd(UInt64(count), ordering: .relaxed)
    }
}
