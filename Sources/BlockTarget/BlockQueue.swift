public import Custody
internal import Glibc
public import Inflight
public import Platform
public import Telemetry
public import Uring
public import Virtio

/// One queue of a disk: takes requests from its ring, hands them to a backend, returns them.
///
/// Invariants:
/// - A slot is active exactly from the moment its request is taken until its used element is written; a chain whose
///   head is active already is returned with length 0 and touches nothing.
/// - Guest memory, the ring and the slots stay in place while a slot is active.
/// - One loop owns it. After `init` nothing here allocates.
@safe public struct BlockQueue<Ring: RequestRing & ~Copyable>: ~Copyable {
    /// The queue's index in its device.
    public let index: Int
    /// Requests taken and not yet returned.
    @inlinable public var outstanding: Int { outstandingCount }
    /// The guest's ring makes no sense; it is served no more.
    @inlinable public var isBroken: Bool { broken }
    /// What it has counted, and workers before this one.
    public var counts: QueueCounts { meter.counts }
    /// A write is answered only when it is on stable storage: the driver has turned the write cache off.
    public private(set) var writesThrough: Bool

    @usableFromInline var outstandingCount = 0
    @usableFromInline var broken = false
    @usableFromInline var ring: Ring
    private let memory: GuestMemory
    @usableFromInline var view: GuestMemoryView
    @usableFromInline var rules: RequestRules
    @usableFromInline var marks = WriteMarks.off
    @usableFromInline let storage: BlockSlots
    @usableFromInline let records: RequestRecords
    @usableFromInline var account: QueueAccount
    @usableFromInline var meter: QueueMeter
    /// Operations under way that a worker before has started.
    @usableFromInline var adopted = 0
    @usableFromInline var stalledHead: Int32 = -1
    @usableFromInline var stalledTail: Int32 = -1
    @usableFromInline let throttle: Throttle
    @usableFromInline var limit = LimitWait()
    @usableFromInline var held = HeldRequests()
    let roomPolicy: RoomPolicy
    /// The eventfd that interrupts the guest, or -1.
    @usableFromInline var call: Int32

    /// The most requests taken in one go: enough to amortise a publication, few enough to be fair to other queues.
    @usableFromInline static var batch: UInt16 { 64 }

    /// Takes up a queue.
    ///
    /// - Parameters:
    ///   - ring: lies in `memory`; `adopt` what its log had.
    ///   - records: of the operations under way.
    ///   - account: where it shows what it does.
    ///   - statistics: where it counts; nil: in memory of its own.
    ///   - features: as agreed with the driver.
    ///   - writesThrough: answer a write only when it is on stable storage.
    ///   - call: the eventfd that interrupts the guest, or -1; its owner keeps it open while it is used here.
    ///   - slots: as many as the ring has descriptors, unused; nil: they are made.
    /// - Throws: when there is no memory for the slots.
    public init(
        index: Int, ring: consuming Ring, records: consuming RequestRecords = .none,
        account: consuming QueueAccount = .none, statistics: DeviceStatistics? = nil, memory: GuestMemory,
        disk: DiskDescription, features: UInt64, writesThrough: Bool, call: Int32,
        slots ready: consuming BlockSlots? = nil
    ) throws(Errno) {
        let slots = Int(ring.size)
        let statistics =
            if let statistics { statistics } else { try DeviceStatistics(queueCount: index + 1, queueSize: slots) }
        storage = try BlockSlots(ready, count: slots)
        self.index = index
        self.ring = ring
        self.records = records
        self.account = account
        meter = QueueMeter(statistics, queue: index, slots: slots)
        throttle = Throttle(statistics)
        roomPolicy = RoomPolicy(statistics)
        self.memory = memory
        view = memory.view
        rules = RequestRules(disk, features: features)
        self.writesThrough = writesThrough
        self.call = call
    }

    /// Where the ring stands, as GET_VRING_BASE tells it.
    public var base: UInt32 { ring.base }

    /// Marks in another dirty log, or in none, from now on: requests in flight when they complete.
    public mutating func setMarks(_ new: WriteMarks) {
        marks = new
        // What a worker before has published last may be unmarked.
        if marks.isOn { marks.markRing() }
    }

    /// The disk has another capacity from now on. Requests in flight are carried out as they came.
    ///
    /// - Parameter sectors: of 512 bytes.
    public mutating func setCapacity(_ sectors: UInt64) { rules.sectors = sectors }

    /// Turns the write cache off (`value`) or on. Writes in flight were begun with it on: they are made durable before
    /// they are answered, too.
    public mutating func setWritesThrough(_ value: Bool) {
        writesThrough = value
        guard value else { return }
        for head in 0..<Int(ring.size) where unsafe storage.slots[head].isActive {
            unsafe storage.slots[head].mustSynchronize = !storage.slots[head].isDurable
        }
    }

    /// Whether all requests that were taken wait for room: the storage has begun with none.
    public var isIdleButForStalled: Bool {
        var count = 0
        var next = stalledHead
        while next >= 0, count < outstandingCount {
            count += 1
            unsafe next = storage.slots[Int(next)].nextStalled
        }
        return count + held.count == outstandingCount
    }

    /// Operations under way that a worker before this one has started.
    public var adoptedCount: Int { adopted }

    /// Sends interrupts somewhere else from now on.
    @inlinable
    public mutating func setCall(_ number: Int32) { call = number }

    /// Interrupts the guest once: it may have missed one.
    @inlinable
    public func interrupt() {
        if call >= 0 { signalEvent(call) }
    }

    /// Asks for kicks, before sleep.
    ///
    /// - Returns: true when there is work already.
    @inlinable
    public mutating func enableKicks() -> Bool {
        guard !isBroken else { return false }
        let hasWork = ring.enableKicks()
        if marks.isOn { marks.markRing() }
        return hasWork
    }

    /// Polls from now on.
    @inlinable
    public mutating func disableKicks() {
        ring.disableKicks()
        if marks.isOn { marks.markRing() }
    }

    /// Takes a batch of requests from the ring and starts them.
    ///
    /// - Returns: how many were taken.
    @inlinable
    public mutating func service<Backend: StorageBackend & ~Copyable>(_ backend: inout Backend) -> Int {
        guard !isBroken else { return 0 }
        guard let waiting = ring.availableCount() else {
            broken = true
            return 0
        }
        if waiting == 0 { return 0 }
        account.handleNothing()
        meter.beginBatch()
        let count = Int(min(waiting, Self.batch))
        if count > 1 { ring.prefetchAvailable(UInt16(count)) }
        if throttle.isOn { return serviceLimited(count, &backend) }
        for taken in 0..<count where !takeOne(&backend) { return taken }
        return count
    }

    /// Takes one request and starts it.
    ///
    /// - Returns: false when there was none.
    @inlinable
    @inline(__always)
    mutating func takeOne<Backend: StorageBackend & ~Copyable>(_ backend: inout Backend) -> Bool {
        guard let slot = ring.take() else { return false }
        guard slot < ring.size, unsafe !storage.slots[Int(slot)].isActive else {
            returnUnusable(slot)
            return true
        }
        records.begin(slot)
        meter.take(slot)
        ring.record(slot)
        admit(slot, &backend)
        return true
    }

    /// Reads and checks the request of a slot. Nothing is remembered of an earlier check.
    @inlinable
    @inline(__always)
    mutating func parse(_ head: UInt16) -> ParsedRequest {
        let slot = unsafe storage.slots + Int(head)
        var segments = unsafe slot.pointee.emptySegments
        let verdict = ring.walk(from: head, memory: &view, into: &segments)
        unsafe slot.pointee.segmentStorage = segments.storage
        unsafe slot.pointee.writtenOnSuccess = 1
        return unsafe slot.pointee.parse(segments, verdict: verdict, rules: rules)
    }

    /// Takes a request that has been logged: checks it and starts it.
    @inlinable
    @inline(__always)
    mutating func admit<Backend: StorageBackend & ~Copyable>(_ head: UInt16, _ backend: inout Backend) {
        account.handle(head)
        let parsed = parse(head)
        let slot = unsafe storage.slots + Int(head)
        outstandingCount += 1
        unsafe slot.pointee.isActive = true
        switch parsed {
        case .accepted:
            unsafe slot.pointee.prepare(queue: UInt16(index), head: head, durable: writesThrough)
            let step = unsafe backend.start(&slot.pointee)
            carryOut(step, head, backend)
        case .finished:
            complete(head, .ok)
        case .refused(let status):
            refuse(head, status)
        case .unanswerable:
            giveBackUnanswered(head, isMalformed: true)
        }
    }

    /// Returns a request that has no place for an answer.
    @inlinable
    mutating func giveBackUnanswered(_ head: UInt16, isMalformed: Bool) {
        outstandingCount -= 1
        unsafe storage.slots[Int(head)].isActive = false
        marks.hasUsedElements = true
        meter.refuse(head, isMalformed: isMalformed)
        ring.giveBack(head, written: 0)
        account.giveBack()
    }

    /// Returns a slot that the ring does not have or that is in flight already. It is in no log, so it is published
    /// alone.
    @inlinable
    @inline(never)
    mutating func returnUnusable(_ slot: UInt16) {
        publish()
        marks.hasUsedElements = true
        ring.returnUnusable(slot)
        account.giveBack()
        publish()
        meter.countUnusable()
    }

    /// Goes on with a request whose operation has completed.
    ///
    /// - Parameter token: names the request; a token that names none is dropped and counted.
    @inlinable
    public mutating func finish<Backend: StorageBackend & ~Copyable>(
        token: RequestToken, result: Int32, _ backend: inout Backend
    ) {
        guard token.head < ring.size, unsafe storage.slots[Int(token.head)].isActive,
            unsafe storage.slots[Int(token.head)].token == token.rawValue
        else {
            meter.countStaleCompletion()
            return
        }
        account.handle(token.head)
        if unsafe storage.slots[Int(token.head)].isAdopted {
            finishAdopted(token.head, result, &backend)
            return
        }
        let step = unsafe backend.finish(&storage.slots[Int(token.head)], result: result)
        carryOut(step, token.head, backend)
    }

    /// Starts again what found no room, oldest first, until one finds none again.
    ///
    /// - Returns: whether any was started.
    @inlinable
    public mutating func resumeStalled<Backend: StorageBackend & ~Copyable>(_ backend: inout Backend) -> Bool {
        var progressed = retryHeld(&backend)
        var left = outstanding
        while stalledHead >= 0, left > 0 {
            left -= 1
            let head = UInt16(stalledHead)
            let slot = unsafe storage.slots + Int(head)
            unsafe stalledHead = slot.pointee.nextStalled
            if stalledHead < 0 { stalledTail = -1 }
            account.handle(head)
            let step = unsafe backend.start(&slot.pointee)
            if case .stalled = step {
                // It keeps its place at the front.
                unsafe slot.pointee.nextStalled = stalledHead
                stalledHead = Int32(head)
                if stalledTail < 0 { stalledTail = stalledHead }
                return progressed
            }
            progressed = true
            carryOut(step, head, backend)
        }
        return progressed
    }

    /// Requests wait for room here.
    @inlinable
    public var hasStalled: Bool { stalledHead >= 0 }

    /// Requests wait for room, here or on the host: `resumeStalled` may find some.
    @inlinable
    public var hasWaiting: Bool { stalledHead & held.head >= 0 }

    @inlinable
    @inline(__always)
    mutating func carryOut<Backend: StorageBackend & ~Copyable>(
        _ step: BackendStep, _ head: UInt16, _ backend: borrowing Backend
    ) {
        switch step {
        case .done(let status):
            complete(head, status)
        case .pending:
            let slot = unsafe storage.slots + Int(head)
            unsafe records.issue(
                head, sequence: RequestToken(rawValue: slot.pointee.token).sequence, index: backend.lastIndex,
                slot.pointee.progress)
        case .pendingHere:
            // A completion that led here is let go of: a successor has nothing to wait for.
            records.begin(head)
        case .stalled:
            setAside(head)
            if stalledTail >= 0 {
                unsafe storage.slots[Int(stalledTail)].nextStalled = Int32(head)
            } else {
                stalledHead = Int32(head)
            }
            stalledTail = Int32(head)
        case .held:
            hold(head)
        }
    }

    /// A request will be started again.
    @usableFromInline
    mutating func setAside(_ head: UInt16) {
        // A completion that led here is let go of: a successor has nothing to wait for, and starts anew.
        records.begin(head)
        // Its name is that of the last operation in this slot, whose completion a worker before may have left in
        // the queue: it would be taken for the end of a request that has not begun.
        unsafe storage.slots[Int(head)].token &+= 1 << 32
        unsafe storage.slots[Int(head)].nextStalled = -1
    }

    /// Answers a request that was carried out, or failed at that.
    @inlinable
    @inline(__always)
    mutating func complete(_ head: UInt16, _ status: BlockStatus) {
        let slot = unsafe storage.slots + Int(head)
        unsafe meter.giveBack(
            head, slot.pointee.operation.rawValue, bytes: slot.pointee.totalBytes, isError: status != .ok)
        answer(head, status)
    }

    /// Answers a request that is not carried out.
    @inlinable
    mutating func refuse(_ head: UInt16, _ status: BlockStatus) {
        meter.refuse(head, isMalformed: status == .ioError)
        // Nothing was written to its buffers. To mark them would take as long as their lengths say, which need not fit
        // the disk: a guest could hold the loop up.
        unsafe storage.slots[Int(head)].writableCount = 0
        answer(head, status)
    }

    /// Writes status and used element. The guest sees them at the next `publish`.
    @inlinable
    @inline(__always)
    mutating func answer(_ head: UInt16, _ status: BlockStatus) {
        let slot = unsafe storage.slots + Int(head)
        unsafe slot.pointee.writeStatus(status)
        if marks.isOn { unsafe marks.mark(slot.pointee, in: &view) }
        let written = status == .ok ? unsafe slot.pointee.writtenOnSuccess : 1
        ring.giveBack(head, written: written)
        account.giveBack()
        unsafe slot.pointee.isActive = false
        outstandingCount -= 1
    }

    /// Shows the guest what has been returned, and interrupts it if it asks for that.
    @inlinable
    public mutating func publish() {
        account.handleNothing()
        if marks.isOn, marks.hasUsedElements { marks.markRing() }
        let wantsInterrupt = ring.publish()
        account.publish()
        meter.publish()
        if marks.isOn, marks.hasUsedElements { marks.published() }
        if wantsInterrupt, call >= 0 {
            signalEvent(call)
            meter.countInterrupt()
        }
    }
}

/// Memory for the slots of one queue: all of it is set aside at the start. What each request uses lies close together
/// and is there from the start; pages for what only long chains and ranges need cost nothing until then.
@safe public struct BlockSlots: ~Copyable {
    @usableFromInline let slots: UnsafeMutablePointer<RequestSlot>
    public let count: Int
    private let dense: Mapping
    private let sparse: Mapping

    private static var shortBytes: Int { unsafe RequestSlot.shortCapacity * MemoryLayout<iovec>.stride }
    private static var longBytes: Int { unsafe RequestSlot.longCapacity * MemoryLayout<iovec>.stride }
    private static var rangeBytes: Int { DiskDescription.maximumRanges * MemoryLayout<BlockRange>.stride }
    private static var slotBytes: Int { MemoryLayout<RequestSlot>.stride }

    /// Takes slots that are ready, of which there must be so many; or makes them.
    init(_ ready: consuming BlockSlots?, count: Int) throws(Errno) {
        switch consume ready {
        case .some(let ready):
            precondition(ready.count == count, "a slot for each descriptor")
            self = ready
        case .none: try self.init(count: count)
        }
    }

    /// - Throws: when there is no memory.
    public init(count: Int) throws(Errno) {
        let dense = try Mapping(anonymous: count * (Self.slotBytes + Self.shortBytes))
        let sparse = try Mapping(anonymous: count * (Self.longBytes + Self.rangeBytes))
        dense.populate()
        self.count = count
        unsafe slots = dense.base.bindMemory(to: RequestSlot.self, capacity: count)
        let shortBase = unsafe dense.base + count * Self.slotBytes
        for index in 0..<count {
            let long = unsafe sparse.base + index * (Self.longBytes + Self.rangeBytes)
            unsafe (slots + index).initialize(
                to: RequestSlot(
                    shortSegments: (shortBase + index * Self.shortBytes)
                        .bindMemory(to: iovec.self, capacity: RequestSlot.shortCapacity),
                    longSegments: long.bindMemory(to: iovec.self, capacity: RequestSlot.longCapacity),
                    ranges: (long + Self.longBytes)
                        .bindMemory(to: BlockRange.self, capacity: DiskDescription.maximumRanges)))
        }
        self.dense = dense
        self.sparse = sparse
    }

    deinit {
        unsafe slots.deinitialize(count: count)
    }
}
