internal import BlockTarget
internal import Inflight
internal import Logging
internal import Platform
internal import Uring
internal import Virtio

/// What a queue did while it was attached.
struct QueueReport: Sendable {
    var counters = QueueCounters()
    var faults = StorageFaults()
}

/// One thread that serves queues: takes requests, hands them to its backend, returns them; polls a while when there is
/// nothing to do, then sleeps in one place until a kick, a completion or a command comes.
///
/// Everything here belongs to that thread, to which it is moved once, before it runs. Nothing allocates between two
/// commands.
@safe struct BlockLoop<Backend: StorageBackend & ~Copyable & Sendable>: ~Copyable, @unchecked Sendable {
    /// A queue and what goes with it.
    private struct Place: ~Copyable {
        var queue: BlockQueue
        var signals: QueueSignals
        /// The command that waits until the queue has finished; 0 when none does.
        var detachCommand: UInt64 = 0
        var reportedBroken = false
    }

    private var backend: Backend
    private let disk: DiskDescription
    private let mailbox: LoopMailbox
    private let log: Logger
    private let poller: Poller
    private var window: PollingWindow
    /// The first `count` are initialised, in no order.
    private let places: UnsafeMutablePointer<Place>
    private var count = 0
    /// Queue index to place, or -1.
    private let placeOfQueue: UnsafeMutablePointer<Int>
    /// The place whose stalled requests go first in this turn.
    private var firstToResume = 0
    private var isQuitting = false
    private var reportedFaults = StorageFaults()

    /// Completions taken in one go, so that new requests are not kept waiting for ever.
    private static var completionBatch: Int { 256 }
    /// How long to sleep when something must be tried again that nobody will wake us for.
    private static var retryMilliseconds: Int32 { 1 }

    /// - Throws: when there is no descriptor left for the poller.
    init(
        backend: consuming Backend, disk: DiskDescription, mailbox: LoopMailbox, pollMicroseconds: Int, log: Logger
    ) throws(Errno) {
        let poller = try Poller()
        try poller.watch(mailbox.wakeUp.fd.number, token: 0, edge: true)
        if let descriptor = backend.pollDescriptor { try poller.watch(descriptor, token: 0, edge: true) }
        self.poller = poller
        self.backend = backend
        self.disk = disk
        self.mailbox = mailbox
        self.log = log
        window = PollingWindow(maximumMicroseconds: pollMicroseconds)
        unsafe places = .allocate(capacity: disk.queueCount)
        unsafe placeOfQueue = .allocate(capacity: disk.queueCount)
        unsafe placeOfQueue.initialize(repeating: -1, count: disk.queueCount)
    }

    deinit {
        unsafe places.deinitialize(count: count)
        unsafe places.deallocate()
        unsafe placeOfQueue.deallocate()
    }

    /// Serves until it is told to quit.
    mutating func run() {
        while true {
            if mailbox.hasCommand { obey() }
            if isQuitting { return }
            if turn() {
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
        var worked = false
        for place in 0..<count where unsafe places[place].detachCommand == 0 {
            if unsafe places[place].queue.service(&backend) > 0 { worked = true }
        }
        if backend.queuedCount > 0 { backend.submit() }
        backend.runDeferredWork()
        if reap() { worked = true }
        if resumeStalled() { worked = true }
        var place = 0
        while place < count {
            unsafe places[place].queue.publish()
            if unsafe places[place].queue.isBroken { reportBroken(place) }
            if unsafe places[place].detachCommand != 0, unsafe places[place].queue.outstanding == 0 {
                detach(place)
            } else {
                place += 1
            }
        }
        return worked
    }

    private mutating func reap() -> Bool {
        var worked = false
        for _ in 0..<Self.completionBatch {
            guard let completion = backend.nextCompletion() else { break }
            worked = true
            let token = RequestToken(rawValue: completion.token)
            let queue = Int(token.queue)
            guard queue < disk.queueCount, unsafe placeOfQueue[queue] >= 0 else { continue }
            let place = unsafe placeOfQueue[queue]
            unsafe places[place].queue.finish(token: token, result: completion.result, &backend)
        }
        return worked
    }

    /// Starts again what found no room. Each turn another queue goes first: else one that always has something stalled
    /// would take all room, and the others would wait for ever.
    private mutating func resumeStalled() -> Bool {
        var worked = false
        if firstToResume >= count { firstToResume = 0 }
        var place = firstToResume
        for _ in 0..<count {
            defer { place = place + 1 < count ? place + 1 : 0 }
            if unsafe places[place].queue.hasStalled, unsafe places[place].queue.resumeStalled(&backend) {
                worked = true
            }
        }
        firstToResume += 1
        return worked
    }

    /// Asks for kicks, looks once more, then waits.
    private mutating func sleep() {
        var mustLook = mailbox.hasCommand
        var timeout: Int32? = backend.queuedCount > 0 ? Self.retryMilliseconds : nil
        for place in 0..<count {
            if unsafe places[place].detachCommand == 0, unsafe places[place].queue.enableKicks() { mustLook = true }
            // Stalled requests, and a driver that gives no kicks, need another look that nobody calls for.
            if unsafe places[place].queue.hasStalled || places[place].signals.kick == nil {
                timeout = Self.retryMilliseconds
            }
        }
        if !mustLook {
            let start = monotonicNanoseconds()
            _ = poller.wait(milliseconds: timeout)
            window.slept(nanoseconds: monotonicNanoseconds() - start)
        } else {
            window.foundWork()
        }
        for place in 0..<count { unsafe places[place].queue.disableKicks() }
    }

    private mutating func reportBroken(_ place: Int) {
        guard unsafe !places[place].reportedBroken else { return }
        unsafe places[place].reportedBroken = true
        log.error(
            "the guest's available index makes no sense: the queue is served no more until it is set up anew",
            metadata: ["queue": "\(unsafe places[place].queue.index)"])
        if let error = unsafe places[place].signals.error { signalEvent(error.number) }
    }
}

// MARK: - Commands

extension BlockLoop where Backend: ~Copyable {
    private mutating func obey() {
        while let (number, command) = mailbox.take() {
            switch command {
            case .attach(let attachment):
                mailbox.answer(number, attach(attachment))
            case .detach(let queue):
                guard queue < disk.queueCount, unsafe placeOfQueue[queue] >= 0 else {
                    mailbox.answer(number, .refused("queue \(queue) is not attached"))
                    continue
                }
                setDetachCommand(unsafe placeOfQueue[queue], number)
            case .keep(let queue):
                if queue < disk.queueCount, unsafe placeOfQueue[queue] >= 0 {
                    setDetachCommand(unsafe placeOfQueue[queue], 0)
                }
                mailbox.answer(number, .done)
            case .setSignals(let queue, let signals):
                if queue < disk.queueCount, unsafe placeOfQueue[queue] >= 0 {
                    setSignals(unsafe placeOfQueue[queue], signals)
                }
                mailbox.answer(number, .done)
            case .setWritesThrough(let queue, let value):
                if queue < disk.queueCount, unsafe placeOfQueue[queue] >= 0 {
                    unsafe places[placeOfQueue[queue]].queue.writesThrough = value
                }
                mailbox.answer(number, .done)
            case .quit:
                isQuitting = true
                mailbox.answer(number, .done)
            }
        }
    }

    /// Every command is answered: the one before, too, which the new one replaces.
    private mutating func setDetachCommand(_ place: Int, _ number: UInt64) {
        let old = unsafe places[place].detachCommand
        unsafe places[place].detachCommand = number
        if old != 0 { mailbox.answer(old, .refused("taken back")) }
    }

    private mutating func attach(_ attachment: QueueAttachment) -> LoopReply {
        let index = attachment.index
        guard index < disk.queueCount, unsafe placeOfQueue[index] < 0 else {
            return .refused("queue \(index) still has requests under way")
        }
        guard let descriptors = unsafe UnsafeMutableRawPointer(bitPattern: attachment.descriptors),
            let available = unsafe UnsafeMutableRawPointer(bitPattern: attachment.available),
            let used = unsafe UnsafeMutableRawPointer(bitPattern: attachment.used)
        else { return .refused("queue \(index) has no rings") }
        let plan: RecoveryPlan
        do {
            var log = SplitInflightLog.none
            if let region = attachment.inflight {
                log = try SplitInflightLog(region, queue: index, size: Int(attachment.size))
            }
            let usedIndex = unsafe SplitVirtqueue.usedIndex(at: used)
            plan = try log.recover(usedIndex: usedIndex)
            // Front-ends disagree about what SET_VRING_BASE says after a lost connection: a log that was used knows
            // better.
            let knowsBetter = log.isKept && !plan.isFresh
            let ring = unsafe SplitVirtqueue(
                size: attachment.size, features: attachment.features, descriptors: descriptors, available: available,
                used: used,
                nextAvailable: knowsBetter ? usedIndex &+ UInt16(plan.heads.count) : attachment.nextAvailable)
            let queue = try BlockQueue(
                index: index, ring: ring, log: log, memory: attachment.memory, disk: disk,
                features: attachment.features, writesThrough: attachment.writesThrough,
                call: attachment.signals.call?.number ?? -1)
            unsafe (places + count).initialize(to: Place(queue: queue, signals: QueueSignals()))
        } catch let error as Errno {
            return .refused(
                error == .invalidArgument
                    ? "the inflight region has no room for queue \(index) with \(attachment.size) entries"
                    : "no memory for queue \(index): \(error)")
        } catch {
            return .refused("queue \(index): \(error)")
        }
        unsafe placeOfQueue[index] = count
        count += 1
        setSignals(count - 1, attachment.signals)
        unsafe places[count - 1].queue.disableKicks()
        unsafe places[count - 1].queue.resubmit(plan.heads, &backend)
        return .attached(plan)
    }

    /// Takes new eventfds for a queue. The guest may have missed an interrupt meanwhile, and we a kick: it is
    /// interrupted once, and the ring is looked at in the next turn anyway.
    private mutating func setSignals(_ place: Int, _ signals: QueueSignals) {
        let old = unsafe places[place].signals
        if old.kick !== signals.kick {
            if let kick = old.kick { poller.forget(kick.number) }
            if let kick = signals.kick {
                do throws(Errno) {
                    try poller.watch(kick.number, token: 0, edge: true)
                } catch {
                    log.error(
                        "cannot wait for kicks: \(error)", metadata: ["queue": "\(unsafe places[place].queue.index)"])
                }
            }
        }
        let callChanged = old.call !== signals.call
        unsafe places[place].signals = signals
        if callChanged {
            unsafe places[place].queue.setCall(signals.call?.number ?? -1)
            unsafe places[place].queue.interrupt()
        }
    }

    private mutating func detach(_ place: Int) {
        let finished = unsafe (places + place).move()
        count -= 1
        unsafe placeOfQueue[finished.queue.index] = -1
        if place < count {
            unsafe (places + place).initialize(to: (places + count).move())
            unsafe placeOfQueue[places[place].queue.index] = place
        }
        if let kick = finished.signals.kick { poller.forget(kick.number) }
        var report = QueueReport(counters: finished.queue.counters, faults: backend.faults)
        report.faults.subtract(reportedFaults)
        reportedFaults = backend.faults
        let (command, nextAvailable) = (finished.detachCommand, finished.queue.nextAvailable)
        // Its memory and its descriptors are let go of before anybody is told so.
        _ = consume finished
        mailbox.answer(command, .detached(nextAvailable: nextAvailable, report))
    }
}
