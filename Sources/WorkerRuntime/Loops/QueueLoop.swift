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

/// One thread that serves queues: takes requests, hands them to what it serves, returns them; polls a while when there
/// is nothing to do, then sleeps in one place until a kick, a completion or a command comes.
///
/// Everything here belongs to that thread, to which it is moved once, before it runs. Nothing allocates between two
/// commands.
@safe struct QueueLoop<Service: LoopService & ~Copyable>: ~Copyable, @unchecked Sendable {
    private var service: Service
    private var office: LoopOffice
    private var account: LoopAccount
    private var window: PollingWindow
    /// The queues, by the kind of their ring. All queues of a driver have the same: one of the tables is empty, unless
    /// the storage keeps a queue of the driver before.
    private var split: QueueTable<Service.SplitQueue>
    private var packed: QueueTable<Service.PackedQueue>
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
    /// How long what a log has is started before what is finished is shown.
    private static var startNanoseconds: UInt64 { 20_000_000 }
    /// How long a loop sleeps at most whose requests wait for a limit or for room on the host.
    private static var longestWaitMilliseconds: UInt64 { 100 }

    /// - Parameters:
    ///   - index: of the loop.
    ///   - standsBy: for a device that another worker may have: nothing is touched before `takeUp`, nothing served
    ///     before `begin`.
    /// - Throws: when there is no descriptor left for the poller.
    init(
        index: Int, service: consuming Service, mailbox: LoopMailbox, pollMicroseconds: Int,
        standsBy: Bool, log: Logger
    ) throws(Errno) {
        isHolding = standsBy
        let poller = try Poller()
        try poller.watch(mailbox.wakeUp.fd.number, token: 0, edge: true)
        if !standsBy {
            for descriptor in service.pollDescriptors { try poller.watch(descriptor, token: 0, edge: true) }
        }
        let (faults, queueCount) = (service.faults, service.queueCount)
        self.service = service
        account = LoopAccount(nil, ring: index, poller: poller.number)
        office = LoopOffice(
            mailbox: mailbox, log: log, poller: poller, index: index, reportedFaults: faults)
        window = PollingWindow(maximumMicroseconds: pollMicroseconds)
        split = QueueTable(capacity: queueCount)
        packed = QueueTable(capacity: queueCount)
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
        var worked = split.resumeStalled(&service)
        if packed.resumeStalled(&service) { worked = true }
        if split.service(&service) { worked = true }
        if packed.service(&service) { worked = true }
        if service.queuedCount > 0 { service.submit() }
        service.runDeferredWork()
        if reap() { worked = true }
        show()
        if settleCommand != 0 { answerIfSettled() }
        return worked
    }

    private mutating func park() {
        handOver()
        // What the kernel finishes is the successor's business from now on. The kernel wakes this thread itself for the
        // work that it needs it for.
        for descriptor in service.pollDescriptors { office.poller.forget(descriptor) }
        // So are kicks, and what the record says of this loop.
        split.forgetKicks(office)
        packed.forgetKicks(office)
        account.rest(true)
        account = LoopAccount(nil, ring: office.index, poller: office.poller.number)
        isHolding = true
    }

    private mutating func reap() -> Bool {
        var worked = false
        for _ in 0..<Self.completionBatch {
            guard let completion = service.nextCompletion() else { break }
            worked = true
            if !split.finish(completion, &service) { _ = packed.finish(completion, &service) }
        }
        return worked
    }

    /// Asks for kicks, looks once more, then waits.
    private mutating func sleep() {
        let (inSplit, inPacked) = (split.enableKicks(), packed.enableKicks())
        if office.mailbox.hasCommand || inSplit.work || inPacked.work {
            window.foundWork()
        } else {
            let mustRetry = service.queuedCount > 0 || inSplit.mustRetry || inPacked.mustRetry
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

extension QueueLoop where Service: ~Copyable {
    /// Carries out the commands that wait.
    mutating func obey() {
        while let (number, command) = office.mailbox.take() {
            switch command {
            case .attach(let attachment):
                let reply = attach(attachment)
                if isHolding || reply.isRefusal {
                    office.mailbox.answer(number, reply)
                } else {
                    startWaiting { $0.answer(number, reply) }
                }
            case .prepare(let queue, let size):
                service.prepare(queue: queue, size: size)
                office.mailbox.answer(number, .done)
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
            case .change(let queue, let change):
                split.apply(change, to: queue)
                packed.apply(change, to: queue)
                if queue == nil { service.apply(change) }
                office.mailbox.answer(number, .done)
            case .setMarks(let queue, let marks):
                split.setMarks(of: queue, marks)
                packed.setMarks(of: queue, marks)
                office.mailbox.answer(number, .done)
            case .begin:
                record?.noteThread(currentThreadNumber(), ring: office.index)
                account.rest(false)
                isHolding = false
                startWaiting { $0.answer(number, .began(at: monotonicNanoseconds())) }
            case .settle: settleCommand = number
            case .park:
                if !isHolding { park() }
                office.mailbox.answer(number, .done)
            case .resume: office.mailbox.answer(number, resume())
            case .quit:
                isQuitting = true
                office.mailbox.answer(number, .done)
            }
        }
    }

    /// The order matters: from the first store to the ring on a successor must know whom to wait for.
    mutating func takeUp(_ record: SessionRecord) -> LoopReply {
        self.record = record
        record.noteThread(currentThreadNumber(), ring: office.index)
        account = LoopAccount(record, ring: office.index, poller: office.poller.number)
        account.rest(true)
        let completions = service.takeUp()
        // The worker before has counted on since this one looked.
        office.reportedFaults = service.faults
        let reply = watchService()
        return reply.isRefusal ? reply : .tookUp(completions: completions)
    }

    private mutating func resume() -> LoopReply {
        guard isHolding else { return .done }
        let reply = watchService()
        split.watchKicks(office)
        packed.watchKicks(office)
        account = LoopAccount(record, ring: office.index, poller: office.poller.number)
        account.rest(false)
        // Nobody may be listening: whoever takes a freeze back has given up waiting.
        if case .refused(let reason) = reply { office.log.error("\(reason)") }
        isHolding = false
        startWaiting { _ in }
        return reply
    }

    /// Has the poller wake this thread for what the kernel has finished. At once, if something is finished already.
    private func watchService() -> LoopReply {
        do throws(Errno) {
            for descriptor in service.pollDescriptors { try office.poller.watch(descriptor, token: 0, edge: true) }
        } catch {
            return .refused("what it has under way cannot be waited for: \(error)")
        }
        return .done
    }

    /// Starts what the logs of queues have. Where that may wait for the storage, for each of them, whoever waits for
    /// this loop is answered before, and what is finished is shown meanwhile, so that a successor need not begin anew.
    /// Else the requests go first: whoever is answered wakes up, and takes the CPU.
    ///
    /// - Parameter answer: called once.
    private mutating func startWaiting(_ answer: (LoopMailbox) -> Void) {
        if Service.startMayWait { answer(office.mailbox) }
        while !startSome() {
            account.turn()
            handOver()
        }
        if !Service.startMayWait { answer(office.mailbox) }
    }

    /// - Returns: whether all of them are started.
    private mutating func startSome() -> Bool {
        let end = monotonicNanoseconds() + Self.startNanoseconds
        return split.startWaiting(&service, until: end) && packed.startWaiting(&service, until: end)
    }

    /// Started operations to the kernel, finished requests to the guest.
    private mutating func handOver() {
        if service.queuedCount > 0 { service.submit() }
        show()
    }

    /// Finished requests to the guest; what finished them is needed no more then.
    private mutating func show() {
        service.settle()
        split.publish(service, &office)
        packed.publish(service, &office)
        service.releaseCompletions()
    }

    private func contains(_ queue: Int) -> Bool { split.contains(queue) || packed.contains(queue) }

    private mutating func setDetachCommand(of queue: Int, _ number: UInt64, parking: Bool) {
        split.setDetachCommand(of: queue, number, parking: parking, office)
        packed.setDetachCommand(of: queue, number, parking: parking, office)
    }

    mutating func attach(_ attachment: QueueAttachment) -> LoopReply {
        let index = attachment.index
        guard index < service.queueCount, !contains(index) else {
            return .refused("queue \(index) still has requests under way")
        }
        if attachment.isPacked { return packed.attach(attachment, &service, office) }
        return split.attach(attachment, &service, office)
    }
}
