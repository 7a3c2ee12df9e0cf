internal import CWire
public import Custody
internal import Glibc
public import Inflight
public import Platform
public import Telemetry
public import Uring
public import Virtio

/// One queue of a file system device: takes requests from its ring, has a server carry them out, returns them.
///
/// Invariants:
/// - A slot is active exactly from the moment its request is taken until its used element is written; a chain whose
///   head is active already is returned with length 0 and touches nothing.
/// - Guest memory, the ring and the slots stay in place while a slot is active.
/// - One loop owns it. After `init` nothing here allocates.
@safe public struct FuseQueue<Ring: RequestRing & ~Copyable>: ~Copyable {
    /// The queue's index in its device: 0 is hiprio.
    public let index: Int
    /// Requests taken and not yet returned.
    public internal(set) var outstanding = 0
    /// The guest's ring makes no sense; it is served no more.
    public internal(set) var isBroken = false
    /// What it has counted, and workers before this one. Kinds: see `meterKind`.
    public var counts: QueueCounts { meter.counts }

    var ring: Ring
    private let memory: GuestMemory
    var view: GuestMemoryView
    let storage: FuseSlots
    let records: RequestRecords
    var account: QueueAccount
    var meter: QueueMeter
    /// Operations under way that a worker before has started.
    var adopted = 0
    /// Requests that found no room, oldest first, and those that wait for a lock.
    @usableFromInline var stalled = SlotList()
    @usableFromInline var waiting = SlotList()
    /// What the device may have done in a second, and what waits because it is more; nil: no limit holds this queue.
    private let throttle: Throttle
    private var limit = LimitWait()
    private let isUrgent: Bool
    /// The urgent queue was used for what costs something: it waits as the others do from then on.
    private var owes = false
    private let waitingLimit: Int
    /// The eventfd that interrupts the guest, or -1.
    private var call: Int32

    /// The most requests taken in one go: enough to amortise a publication, few enough to be fair to other queues.
    static var batch: UInt16 { 64 }

    /// Takes up a queue.
    ///
    /// - Parameters:
    ///   - ring: lies in `memory`; `adopt` what its log had.
    ///   - records: of the operations under way.
    ///   - account: where it shows what it does.
    ///   - statistics: where it counts; nil: in memory of its own.
    ///   - isUrgent: it is hiprio, and has what no limit may hold up: FORGET and INTERRUPT.
    ///   - waitingLimit: requests that may wait for a lock at once: the others need room, the unlocking ones too; nil:
    ///     an eighth of the ring, whose requests take some descriptors each.
    ///   - call: the eventfd that interrupts the guest, or -1; its owner keeps it open while it is used here.
    ///   - slots: as many as the ring has descriptors, unused; nil: they are made.
    /// - Throws: when there is no memory for the slots.
    public init(
        index: Int, ring: consuming Ring, records: consuming RequestRecords = .none,
        account: consuming QueueAccount = .none, statistics: DeviceStatistics? = nil, isUrgent: Bool = false,
        waitingLimit: Int? = nil, memory: GuestMemory, call: Int32, slots ready: consuming FuseSlots? = nil
    ) throws(Errno) {
        let slots = Int(ring.size)
        let statistics =
            if let statistics { statistics } else { try DeviceStatistics(queueCount: index + 1, queueSize: slots) }
        storage = try FuseSlots(ready, count: slots)
        self.index = index
        self.ring = ring
        self.records = records
        self.account = account
        meter = QueueMeter(statistics, queue: index, slots: slots)
        throttle = Throttle(statistics)
        self.isUrgent = isUrgent
        self.waitingLimit = max(1, waitingLimit ?? slots / 8)
        self.memory = memory
        view = memory.view
        self.call = call
    }

    /// Where the ring stands, as GET_VRING_BASE tells it.
    public var base: UInt32 { ring.base }

    /// Operations under way that a worker before this one has started.
    public var adoptedCount: Int { adopted }

    /// Sends interrupts somewhere else from now on.
    public mutating func setCall(_ number: Int32) { call = number }

    /// Interrupts the guest once: it may have missed one.
    public func interrupt() {
        if call >= 0 { signalEvent(call) }
    }

    /// Asks for kicks, before sleep.
    ///
    /// - Returns: true when there is work already.
    public mutating func enableKicks() -> Bool { isBroken ? false : ring.enableKicks() }

    /// Polls from now on.
    public mutating func disableKicks() { ring.disableKicks() }

    /// Requests wait for room in the engine.
    ///
    /// Looked at in each turn, and inlined: the caller of one that is not is given a copy of the queue.
    @inlinable public var hasStalled: Bool { stalled.count > 0 }
    /// Requests wait for a lock.
    @inlinable public var hasWaiting: Bool { waiting.count > 0 }

    /// Whether nothing that was taken is under way: all of it waits.
    public var isIdleButForStalled: Bool { stalled.count + waiting.count == outstanding }

    // MARK: Taking

    /// Takes a batch of requests from the ring and starts them.
    ///
    /// - Returns: how many were taken.
    public mutating func service<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ server: inout FuseServer<Files, Engine>
    ) -> Int {
        guard !isBroken else { return 0 }
        guard let available = ring.availableCount() else {
            isBroken = true
            return 0
        }
        if available == 0 { return 0 }
        account.handleNothing()
        meter.beginBatch()
        let count = Int(min(available, Self.batch))
        if count > 1 { ring.prefetchAvailable(UInt16(count)) }
        let isLimited = throttle.isOn
        for taken in 0..<count {
            if isLimited, !isUrgent || owes, limit.holds(throttle, &meter) { return taken }
            if let slot = ring.slotToTake { records.begin(slot) }
            guard let slot = ring.take() else { return taken }
            guard slot < ring.size, !storage.isActive(slot) else {
                server.tidy()
                returnUnusable(slot)
                continue
            }
            records.begin(slot)
            meter.take(slot)
            ring.record(slot)
            if isLimited { emptyTransfer(slot) }
            admit(slot, &server)
            if isLimited { charge(slot) }
        }
        if isLimited { limit.isOver() }
        return count
    }

    /// A request that cannot be read moves no data: the slot may have that of an earlier one.
    private func emptyTransfer(_ head: UInt16) {
        let slot = unsafe storage.slots + Int(head)
        unsafe (slot.pointee.opcode, slot.pointee.remaining, slot.pointee.transferred) = (0, 0, 0)
    }

    /// Pays for a request that has been begun: for the data of READ and WRITE as asked for, for what COPY_FILE_RANGE
    /// has copied, for nothing in what takes no answer.
    private mutating func charge(_ head: UInt16) {
        let slot = unsafe storage.slots + Int(head)
        switch unsafe Int(slot.pointee.opcode) {
        case WIRE_FUSE_FORGET, WIRE_FUSE_BATCH_FORGET, WIRE_FUSE_INTERRUPT: return
        default: break
        }
        let bytes = unsafe slot.pointee.remaining + slot.pointee.transferred
        throttle.charge(bytes: UInt64(bytes), at: meter.batchTime)
        owes = true
    }

    /// When requests that wait for the device's limit may be taken, in nanoseconds of CLOCK_MONOTONIC; nil: none wait.
    /// To be asked after a turn that has found nothing to do, once.
    public mutating func takeLimitEnd() -> UInt64? { limit.takeEnd(throttle) }

    /// Takes a request that has been logged: reads it and starts it.
    mutating func admit<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ head: UInt16, _ server: inout FuseServer<Files, Engine>
    ) {
        account.handle(head)
        outstanding += 1
        let slot = unsafe storage.slots + Int(head)
        unsafe slot.pointee.isActive = true
        unsafe slot.pointee.token =
            RequestToken(
                sequence: RequestToken(rawValue: slot.pointee.token).sequence, queue: UInt16(index), head: head
            ).rawValue
        guard let segments = walk(head) else {
            giveBack(head, written: 0, isMalformed: true)
            return
        }
        let step = unsafe server.begin(&slot.pointee, segments)
        carryOut(step, head, &server)
    }

    /// The buffers of a request; nil when its chain makes no sense.
    mutating func walk(_ head: UInt16) -> SegmentList? {
        var segments = unsafe storage.slots[Int(head)].emptySegments
        guard case .sound = ring.walk(from: head, memory: &view, into: &segments) else { return nil }
        return segments
    }

    /// Returns a slot that the ring does not have or that is in flight already. It is in no log, so it is published
    /// alone.
    private mutating func returnUnusable(_ slot: UInt16) {
        publish()
        ring.returnUnusable(slot)
        account.giveBack()
        publish()
        meter.countUnusable()
    }

    // MARK: Going on

    /// Goes on with a request whose operation has completed.
    ///
    /// - Parameter token: names the request; a token that names none is dropped and counted.
    public mutating func finish<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        token: RequestToken, result: Int32, _ server: inout FuseServer<Files, Engine>
    ) {
        guard token.head < ring.size, storage.isActive(token.head),
            unsafe storage.slots[Int(token.head)].token == token.rawValue
        else {
            meter.countStaleCompletion()
            return
        }
        account.handle(token.head)
        let slot = unsafe storage.slots + Int(token.head)
        if unsafe slot.pointee.isAdopted {
            finishAdopted(token.head, result, &server)
            return
        }
        let step = unsafe server.finish(&slot.pointee, result: result)
        carryOut(step, token.head, &server)
    }

    /// Starts again what found no room, oldest first, until one finds none again.
    ///
    /// - Returns: whether any was started.
    public mutating func resumeStalled<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ server: inout FuseServer<Files, Engine>
    ) -> Bool {
        var progressed = false
        for _ in 0..<stalled.count {
            guard let head = stalled.takeFirst(storage) else { break }
            account.handle(head)
            let step = unsafe server.resume(&storage.slots[Int(head)])
            if case .stalled = step {
                // It keeps its place at the front.
                stalled.putFirst(head, storage)
                return progressed
            }
            progressed = true
            carryOut(step, head, &server)
        }
        return progressed
    }

    /// Has those that wait for a lock try again, each once.
    ///
    /// - Returns: whether any waits no more.
    public mutating func resumeWaiting<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ server: inout FuseServer<Files, Engine>
    ) -> Bool {
        let before = waiting.count
        for _ in 0..<before {
            guard let head = waiting.takeFirst(storage) else { break }
            account.handle(head)
            let step = unsafe server.resume(&storage.slots[Int(head)])
            carryOut(step, head, &server)
        }
        return waiting.count < before
    }

    /// Answers those that wait for a lock: whoever has it may keep it for ever, and the queue is to be let go of.
    public mutating func endWaits<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ server: inout FuseServer<Files, Engine>
    ) {
        while let head = waiting.takeFirst(storage) {
            let step = unsafe server.endWait(of: &storage.slots[Int(head)], .interrupted)
            carryOut(step, head, &server)
        }
    }

    mutating func carryOut<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ step: FuseStep, _ head: UInt16, _ server: inout FuseServer<Files, Engine>
    ) {
        switch step {
        case .done(let written):
            giveBack(head, written: written, isMalformed: false)
        case .pending:
            let slot = unsafe storage.slots + Int(head)
            unsafe records.issue(
                head, sequence: RequestToken(rawValue: slot.pointee.token).sequence, index: server.lastIndex,
                slot.pointee.progress)
        case .submitting:
            // What the kernel has is in the record before it has it.
            carryOut(.pending, head, &server)
            if let step = unsafe server.submitAtOnce(&storage.slots[Int(head)]) {
                records.begin(head)
                carryOut(step, head, &server)
            }
        case .again:
            records.begin(head)
            guard let segments = walk(head) else {
                giveBack(head, written: 0, isMalformed: true)
                return
            }
            carryOut(unsafe server.restart(&storage.slots[Int(head)], segments), head, &server)
        case .stalled:
            setAside(head)
            stalled.putLast(head, storage)
        case .waiting where waiting.count >= waitingLimit:
            // What lets others go on has to find a slot.
            let slot = unsafe storage.slots + Int(head)
            carryOut(unsafe server.endWait(of: &slot.pointee, Errno(rawValue: ENOLCK)), head, &server)
        case .waiting:
            setAside(head)
            waiting.putLast(head, storage)
        }
    }

    /// A request that waits has no operation. A completion that led here is let go of: a successor has nothing to wait
    /// for, and starts anew. One of a request that had this slot before may be there yet: it is not this one's.
    private mutating func setAside(_ head: UInt16) {
        records.begin(head)
        unsafe storage.slots[Int(head)].token &+= 1 << 32
    }

    /// Writes the used element. The guest sees it at the next `publish`.
    mutating func giveBack(_ head: UInt16, written: UInt32, isMalformed: Bool) {
        let slot = unsafe storage.slots + Int(head)
        outstanding -= 1
        unsafe slot.pointee.isActive = false
        if isMalformed {
            meter.refuse(head, isMalformed: true)
        } else {
            unsafe meter.giveBack(
                head, meterKind(opcode: slot.pointee.opcode), bytes: UInt64(slot.pointee.transferred),
                isError: slot.pointee.hasFailed)
        }
        ring.giveBack(head, written: written)
        account.giveBack()
    }

    /// Shows the guest what has been returned, and interrupts it if it asks for that.
    public mutating func publish() {
        account.handleNothing()
        let wantsInterrupt = ring.publish()
        account.publish()
        meter.publish()
        if wantsInterrupt, call >= 0 {
            signalEvent(call)
            meter.countInterrupt()
        }
    }
}

/// Slots in a row, linked through their `nextWaiting`.
@usableFromInline struct SlotList {
    @usableFromInline private(set) var count = 0
    private var first: Int32 = -1
    private var last: Int32 = -1

    mutating func takeFirst(_ storage: borrowing FuseSlots) -> UInt16? {
        guard first >= 0, count > 0 else { return nil }
        let head = UInt16(first)
        first = unsafe storage.slots[Int(head)].nextWaiting
        if first < 0 { last = -1 }
        count -= 1
        return head
    }

    mutating func putLast(_ head: UInt16, _ storage: borrowing FuseSlots) {
        unsafe storage.slots[Int(head)].nextWaiting = -1
        if last >= 0 { unsafe storage.slots[Int(last)].nextWaiting = Int32(head) } else { first = Int32(head) }
        last = Int32(head)
        count += 1
    }

    mutating func putFirst(_ head: UInt16, _ storage: borrowing FuseSlots) {
        unsafe storage.slots[Int(head)].nextWaiting = first
        first = Int32(head)
        if last < 0 { last = first }
        count += 1
    }
}

extension FuseSlots {
    func isActive(_ slot: UInt16) -> Bool { unsafe slots[Int(slot)].isActive }
}
