internal import BlockTarget
internal import Custody
internal import Inflight
internal import Logging
internal import Platform
internal import Telemetry
internal import Uring
internal import Virtio

/// What a queue did while it was attached.
struct QueueReport: Sendable {
    var counts = QueueCounts()
    var faults = StorageFaults()
}

/// One thread that serves queues: takes requests, hands them to its backend, returns them; polls a while when there is
/// nothing to do, then sleeps in one place until a kick, a completion or a command comes.
///
/// Everything here belongs to that thread, to which it is moved once, before it runs. Nothing allocates between two
/// commands.
@safe struct BlockLoop<Backend: StorageBackend & ~Copyable & Sendable>: ~Copyable, @unchecked Sendable {
    private var backend: Backend
    private var office: LoopOffice
    private var account: LoopAccount
    private var window: PollingWindow
    /// The queues, by the kind of their ring. All queues of a driver have the same: one of the tables is empty, unless
    /// the storage keeps a queue of the driver before.
    private var split: QueueTable<SplitRequestRing>
    private var packed: QueueTable<PackedRequestRing>
    private var isQuitting = false
    /// Nothing is taken, from guests or from the kernel: queues are being taken over, or the device is somebody else's.
    /// The thread sleeps where the kernel can finish its requests.
    private var isHolding: Bool
    /// Of the device, when it is in custody and this worker's.
    private var record: SessionRecord?
    /// The command to answer when nothing of a worker before is under way; 0: none.
    private var settleCommand: UInt64 = 0

    /// Completions taken in one go, so that new requests are not kept waiting for ever.
    private static var completionBatch: Int { 256 }
    /// How long to sleep when something must be tried again that nobody will wake us for.
    private static var retryMilliseconds: Int32 { 1 }
    /// How long a loop sleeps at most whose requests wait for a limit or for room on the host.
    private static var longestWaitMilliseconds: UInt64 { 100 }

    /// - Parameters:
    ///   - index: of the loop.
    ///   - standsBy: for a device that another worker may have: nothing is touched before `takeUp`, nothing served
    ///     before `begin`.
    /// - Throws: when there is no descriptor left for the poller.
    init(
        index: Int, backend: consuming Backend, disk: DiskDescription, mailbox: LoopMailbox, pollMicroseconds: Int,
        standsBy: Bool, log: Logger
    ) throws(Errno) {
        isHolding = standsBy
        let poller = try Poller()
        try poller.watch(mailbox.wakeUp.fd.number, token: 0, edge: true)
        if !standsBy, let descriptor = backend.pollDescriptor { try poller.watch(descriptor, token: 0, edge: true) }
        let faults = backend.faults
        self.backend = backend
        account = LoopAccount(nil, ring: index, poller: poller.number)
        office = LoopOffice(
            disk: disk, mailbox: mailbox, log: log, poller: poller, index: index, reportedFaults: faults)
        window = PollingWindow(maximumMicroseconds: pollMicroseconds)
        split = QueueTable(capacity: disk.queueCount)
        packed = QueueTable(capacity: disk.queueCount)
    }

    /// Serves until it is told to quit.
    mutating func run() {
        while true {
            if office.mailbox.hasCommand { obey() }
            if isQuitting { return }
            if isHolding {
                wait(milliseconds: nil)
            } else if turn() {
                window.foundWork()
            } else if !window.shouldLookAgain() {
                sleep()
            } else {
                spinHint()
            }
        }
    }

    /// One round over everything that can have work.
    ///
    /// - Returns: whether there was any.
    private mutating func turn() -> Bool {
        account.turn()
        // What has waited for room goes before what comes now.
        var worked = split.resumeStalled(&backend)
        if packed.resumeStalled(&backend) { worked = true }
        if split.service(&backend) { worked = true }
        if packed.service(&backend) { worked = true }
        if backend.queuedCount > 0 { backend.submit() }
        backend.runDeferredWork()
        if reap() { worked = true }
        split.publish(backend, &office)
        packed.publish(backend, &office)
        backend.releaseCompletions()
        if settleCommand != 0 { answerIfSettled() }
        return worked
    }

    /// Hands over what is ready: started operations to the kernel, finished requests to the guest.
    private mutating func park() {
        if backend.queuedCount > 0 { backend.submit() }
        split.publish(backend, &office)
        packed.publish(backend, &office)
        backend.releaseCompletions()
        // What the kernel finishes is the successor's business from now on. The kernel wakes this thread itself for the
        // work that it needs it for.
        if let descriptor = backend.pollDescriptor { office.poller.forget(descriptor) }
        isHolding = true
    }

    private mutating func reap() -> Bool {
        var worked = false
        for _ in 0..<Self.completionBatch {
            guard let completion = backend.nextCompletion() else { break }
            worked = true
            if !split.finish(completion, &backend) { _ = packed.finish(completion, &backend) }
        }
        return worked
    }

    /// Asks for kicks, looks once more, then waits.
    private mutating func sleep() {
        let (inSplit, inPacked) = (split.enableKicks(), packed.enableKicks())
        if office.mailbox.hasCommand || inSplit.work || inPacked.work {
            window.foundWork()
        } else {
            let mustRetry = backend.queuedCount > 0 || inSplit.mustRetry || inPacked.mustRetry
            let start = monotonicNanoseconds()
            let deadline = min(inSplit.deadline, inPacked.deadline)
            wait(milliseconds: mustRetry ? Self.retryMilliseconds : Self.milliseconds(until: deadline, start))
            window.slept(nanoseconds: monotonicNanoseconds() - start)
        }
        split.disableKicks()
        packed.disableKicks()
    }

    /// How long to sleep; nil: until something comes. Not past the moment at which another policy is to be seen.
    private static func milliseconds(until deadline: UInt64, _ now: UInt64) -> Int32? {
        if deadline == .max { return nil }
        guard deadline > now else { return retryMilliseconds }
        return Int32(min((deadline - now + 999_999) / 1_000_000, longestWaitMilliseconds))
    }

    /// Sleeps, and lets others see that.
    private func wait(milliseconds: Int32?) {
        account.rest(true)
        _ = office.poller.wait(milliseconds: milliseconds)
        account.rest(false)
    }

    private mutating func answerIfSettled() {
        guard split.adoptedCount == 0, packed.adoptedCount == 0 else { return }
        office.mailbox.answer(settleCommand, .done)
        settleCommand = 0
    }
}

// MARK: - Commands

extension BlockLoop where Backend: ~Copyable {
    /// Carries out the commands that wait.
    mutating func obey() {
        while let (number, command) = office.mailbox.take() {
            switch command {
            case .attach(let attachment):
                let reply = attach(attachment)
                if !isHolding { startWaiting() }
                office.mailbox.answer(number, reply)
            case .detach(let queue, let parking):
                if contains(queue) {
                    setDetachCommand(of: queue, number, parking: parking)
                } else {
                    office.mailbox.answer(number, .refused("queue \(queue) is not attached"))
                }
            case .keep(let queue):
                setDetachCommand(of: queue, 0, parking: false)
                office.mailbox.answer(number, .done)
            case .setSignals(let queue, let signals):
                split.setSignals(of: queue, signals, office)
                packed.setSignals(of: queue, signals, office)
                office.mailbox.answer(number, .done)
            case .setWritesThrough(let queue, let value):
                split.setWritesThrough(of: queue, value)
                packed.setWritesThrough(of: queue, value)
                office.mailbox.answer(number, .done)
            case .setMarks(let queue, let marks):
                split.setMarks(of: queue, marks)
                packed.setMarks(of: queue, marks)
                office.mailbox.answer(number, .done)
            case .setCapacity(let sectors):
                office.disk.sectors = sectors
                split.setCapacity(sectors)
                packed.setCapacity(sectors)
                office.mailbox.answer(number, .done)
            case .takeUp(let record): office.mailbox.answer(number, takeUp(record))
            case .begin:
                record?.noteThread(currentThreadNumber(), ring: office.index)
                account.rest(false)
                isHolding = false
                startWaiting()
                office.mailbox.answer(number, .done)
            case .settle: settleCommand = number
            case .park:
                if !isHolding { park() }
                office.mailbox.answer(number, .done)
            case .quit:
                isQuitting = true
                office.mailbox.answer(number, .done)
            }
        }
    }

    /// The order matters: from the first store to the ring on a successor must know whom to wait for.
    private mutating func takeUp(_ record: SessionRecord) -> LoopReply {
        self.record = record
        record.noteThread(currentThreadNumber(), ring: office.index)
        account = LoopAccount(record, ring: office.index, poller: office.poller.number)
        account.rest(true)
        let completions = backend.takeUp()
        // The worker before has counted on since this one looked.
        office.reportedFaults = backend.faults
        guard let descriptor = backend.pollDescriptor else { return .tookUp(completions: completions) }
        do throws(Errno) {
            try office.poller.watch(descriptor, token: 0, edge: true)
        } catch {
            return .refused("its kernel ring cannot be waited for: \(error)")
        }
        return .tookUp(completions: completions)
    }

    private mutating func startWaiting() {
        split.startWaiting(&backend)
        packed.startWaiting(&backend)
    }

    private func contains(_ queue: Int) -> Bool { split.contains(queue) || packed.contains(queue) }

    private mutating func setDetachCommand(of queue: Int, _ number: UInt64, parking: Bool) {
        split.setDetachCommand(of: queue, number, parking: parking, office)
        packed.setDetachCommand(of: queue, number, parking: parking, office)
    }

    private mutating func attach(_ attachment: QueueAttachment) -> LoopReply {
        let index = attachment.index
        guard index < office.disk.queueCount, !contains(index) else {
            return .refused("queue \(index) still has requests under way")
        }
        if attachment.isPacked { return packed.attach(attachment, &backend, office) }
        return split.attach(attachment, &backend, office)
    }
}
