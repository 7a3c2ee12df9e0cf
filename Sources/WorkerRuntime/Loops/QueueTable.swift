internal import BlockTarget
internal import Custody
internal import Inflight
internal import Logging
internal import Platform
internal import Telemetry
internal import Uring
internal import Virtio

/// What all queues of a loop share besides what it serves. The loop's thread owns it.
struct LoopOffice: ~Copyable {
    let mailbox: LoopMailbox
    let log: Logger
    let poller: Poller
    /// The index of this loop, and of its kernel ring.
    let index: Int
    /// Faults of the storage that some queue's report has told already.
    var reportedFaults = StorageFaults()
}

/// The queues of one loop that have one kind of ring.
///
/// Nothing allocates here between two commands.
@safe struct QueueTable<Queue: ServedQueue & ~Copyable>: ~Copyable {
    /// A queue and what goes with it.
    private struct Place: ~Copyable {
        var queue: Queue
        var signals: QueueSignals
        /// The command that waits until the queue has finished; 0 when none does.
        var detachCommand: UInt64 = 0
        /// That command leaves what the storage has not begun with in the inflight log, which there is.
        var isParking = false
        let canPark: Bool
        /// Keeps what the queue marks its writes with.
        var marks: QueueMarks?
        var reportedBroken = false
        /// Of the log, to be started when all queues have been taken over.
        var waiting: [UInt16] = []
        /// What had been counted when it was attached.
        let countsBefore: QueueCounts
    }

    /// The first `count` are initialised, in no order.
    private let places: UnsafeMutablePointer<Place>
    private(set) var count = 0
    /// Queue index to place, or -1.
    private let placeOfQueue: UnsafeMutablePointer<Int>
    private let capacity: Int
    /// The place whose stalled requests go first in this turn.
    private var firstToResume = 0
    /// The place that takes requests first in this turn: at a limit, what the others have left is all that there is.
    private var firstToServe = 0

    /// - Parameter capacity: indices of queues are below it.
    init(capacity: Int) {
        self.capacity = capacity
        unsafe places = .allocate(capacity: capacity)
        unsafe placeOfQueue = .allocate(capacity: capacity)
        unsafe placeOfQueue.initialize(repeating: -1, count: capacity)
    }

    deinit {
        unsafe places.deinitialize(count: count)
        unsafe places.deallocate()
        unsafe placeOfQueue.deallocate()
    }

    /// The place of a queue; nil when it is not here.
    private func place(of queue: Int) -> Int? {
        guard queue < capacity, unsafe placeOfQueue[queue] >= 0 else { return nil }
        return unsafe placeOfQueue[queue]
    }

    /// Whether a queue is here.
    func contains(_ queue: Int) -> Bool { place(of: queue) != nil }
}

// MARK: - A turn

extension QueueTable where Queue: ~Copyable {
    /// Takes and starts a batch of requests of each queue.
    ///
    /// - Returns: whether there were any.
    mutating func service(_ service: inout Queue.Service) -> Bool {
        var worked = false
        if firstToServe >= count { firstToServe = 0 }
        var place = firstToServe
        for _ in 0..<count {
            defer { place = place + 1 < count ? place + 1 : 0 }
            if unsafe places[place].detachCommand != 0 { continue }
            if unsafe places[place].queue.service(&service) > 0 { worked = true }
        }
        firstToServe += 1
        return worked
    }

    /// Goes on with the request of a completion.
    ///
    /// - Returns: false when its queue is not here.
    mutating func finish(
        _ completion: IOCompletion, _ service: inout Queue.Service
    ) -> Bool {
        let token = RequestToken(rawValue: completion.token)
        guard let place = place(of: Int(token.queue)) else { return false }
        unsafe places[place].queue.finish(completion, &service)
        return true
    }

    /// Starts again what found no room. Each turn another queue goes first: else one that always has something stalled
    /// would take all room, and the others would wait for ever.
    mutating func resumeStalled(_ service: inout Queue.Service) -> Bool {
        var worked = false
        if firstToResume >= count { firstToResume = 0 }
        var place = firstToResume
        for _ in 0..<count {
            defer { place = place + 1 < count ? place + 1 : 0 }
            if unsafe places[place].isParking { continue }
            if unsafe places[place].queue.hasWaiting, unsafe places[place].queue.resumeStalled(&service) {
                worked = true
            }
        }
        firstToResume += 1
        return worked
    }

    /// Shows the guest what is done, and lets go of queues that have finished.
    mutating func publish(
        _ service: borrowing Queue.Service, _ office: inout LoopOffice
    ) {
        var place = 0
        while place < count {
            unsafe places[place].queue.publish()
            if unsafe places[place].queue.isBroken { reportBroken(place, office) }
            if unsafe places[place].detachCommand != 0, hasFinished(place) {
                detach(place, service.faults, &office)
            } else {
                place += 1
            }
        }
    }

    /// Whether the storage has nothing of a queue that is to be let go.
    private func hasFinished(_ place: Int) -> Bool {
        if unsafe places[place].queue.outstanding == 0 { return true }
        return unsafe places[place].isParking && places[place].queue.isIdleButForStalled
    }

    /// Asks for kicks, before sleep.
    ///
    /// - Returns: whether there is work already; whether some may come that nobody calls for: stalled requests, and a
    ///   driver that gives no kicks; and when to look again, in nanoseconds of CLOCK_MONOTONIC.
    mutating func enableKicks() -> (work: Bool, mustRetry: Bool, deadline: UInt64) {
        var result = (work: false, mustRetry: false, deadline: UInt64.max)
        for place in 0..<count {
            // One that parks tries nothing again.
            let wait = unsafe places[place].isParking ? nil : places[place].queue.takeDeadline()
            if let wait { result.deadline = min(result.deadline, wait.time) }
            if unsafe places[place].queue.hasStalled || places[place].signals.kick == nil { result.mustRetry = true }
            if unsafe wait?.isAtLimit ?? false || places[place].detachCommand != 0 { continue }
            if unsafe places[place].queue.enableKicks() { result.work = true }
        }
        return result
    }

    /// Polls from now on.
    mutating func disableKicks() {
        for place in 0..<count { unsafe places[place].queue.disableKicks() }
    }

    private mutating func reportBroken(_ place: Int, _ office: borrowing LoopOffice) {
        guard unsafe !places[place].reportedBroken else { return }
        unsafe places[place].reportedBroken = true
        let breakage = Queue.breakage
        office.log.log(
            level: breakage.level, "\(breakage.text)", metadata: ["queue": "\(unsafe places[place].queue.index)"])
        if let error = unsafe places[place].signals.error { signalEvent(error.number) }
    }
}

// MARK: - Commands

extension QueueTable where Queue: ~Copyable {
    /// Takes up a queue. What its log has goes on with `startWaiting`.
    mutating func attach(
        _ attachment: QueueAttachment, _ service: inout Queue.Service, _ office: borrowing LoopOffice
    ) -> LoopReply {
        let index = attachment.index
        guard let descriptors = unsafe UnsafeMutableRawPointer(bitPattern: attachment.descriptors),
            let driver = unsafe UnsafeMutableRawPointer(bitPattern: attachment.available),
            let device = unsafe UnsafeMutableRawPointer(bitPattern: attachment.used)
        else { return .refused("queue \(index) has no rings") }
        let areas = unsafe RingAreas(
            size: attachment.size, features: attachment.features, descriptors: descriptors, driver: driver,
            device: device)
        var plan = RecoveryPlan()
        do {
            var records = RequestRecords.none
            var account = QueueAccount.none
            if let owned = attachment.ownership {
                records = RequestRecords(
                    owned.record, queue: index, size: Int(attachment.size), generation: owned.generation)
                account = QueueAccount(owned.record, queue: index, ring: office.index)
            }
            let queue = try Queue(
                attachment, areas: areas, records: records, account: account, plan: &plan, service)
            let counts = queue.counts
            unsafe (places + count).initialize(
                to: Place(
                    queue: queue, signals: QueueSignals(), canPark: attachment.inflight != nil, countsBefore: counts))
        } catch let error as Errno {
            return .refused("no memory for queue \(index): \(error)")
        } catch {
            return .refused("queue \(index): \(error)")
        }
        unsafe placeOfQueue[index] = count
        count += 1
        setMarks(of: index, attachment.marks)
        setSignals(of: index, attachment.signals, office)
        unsafe places[count - 1].queue.disableKicks()
        let suspect = attachment.ownership?.suspect
        let rest = unsafe places[count - 1].queue.adopt(&plan, suspect: suspect, &service)
        unsafe places[count - 1].waiting = rest
        return .attached(plan)
    }

    /// Operations of a worker before this one that are still under way.
    var adoptedCount: Int {
        var sum = 0
        for place in 0..<count { sum += unsafe places[place].queue.adoptedCount }
        return sum
    }

    /// Starts what the logs of queues have and the kernel has not. Nothing else may be taken before.
    ///
    /// - Parameter end: when no more is to be begun with, in nanoseconds of CLOCK_MONOTONIC.
    /// - Returns: whether all is started.
    mutating func startWaiting(_ service: inout Queue.Service, until end: UInt64) -> Bool {
        for place in 0..<count {
            while unsafe !places[place].waiting.isEmpty {
                if monotonicNanoseconds() >= end { return false }
                let heads = unsafe Array(places[place].waiting.prefix(Queue.Service.startMayWait ? 1 : .max))
                unsafe places[place].waiting.removeFirst(heads.count)
                unsafe places[place].queue.start(heads, &service)
            }
        }
        return true
    }

    /// Takes no more requests of a queue and lets go of it when it has finished, or takes that back.
    ///
    /// Every command is answered: the one before, too, which the new one replaces.
    ///
    /// - Parameter command: the one to answer then; 0 takes it back.
    /// - Parameter parking: where there is a log, what the storage has not begun with stays there.
    mutating func setDetachCommand(
        of queue: Int, _ command: UInt64, parking: Bool, _ office: borrowing LoopOffice
    ) {
        guard let place = place(of: queue) else { return }
        let old = unsafe places[place].detachCommand
        unsafe places[place].detachCommand = command
        unsafe places[place].isParking = parking && places[place].canPark
        unsafe places[place].queue.endHolding(command != 0 && !places[place].isParking)
        if old != 0 { office.mailbox.answer(old, .refused("taken back")) }
    }

    /// - Parameter queue: nil: all of them.
    mutating func apply(_ change: DeviceChange, to queue: Int?) {
        if let queue {
            guard let place = place(of: queue) else { return }
            unsafe places[place].queue.apply(change)
        } else {
            for place in 0..<count { unsafe places[place].queue.apply(change) }
        }
    }

    mutating func setMarks(of queue: Int, _ marks: QueueMarks?) {
        guard let place = place(of: queue) else { return }
        if let marks {
            let writes = WriteMarks(marks.log, ring: marks.ring, event: marks.event?.number ?? -1)
            unsafe places[place].queue.setMarks(writes)
        } else {
            unsafe places[place].queue.setMarks(.off)
        }
        // After the queue has let go of the old event.
        unsafe places[place].marks = marks
    }

    /// Takes new eventfds for a queue. The guest may have missed an interrupt meanwhile, and we a kick: it is
    /// interrupted once, and the ring is looked at in the next turn anyway.
    mutating func setSignals(of queue: Int, _ signals: QueueSignals, _ office: borrowing LoopOffice) {
        guard let place = place(of: queue) else { return }
        let old = unsafe places[place].signals
        if old.kick !== signals.kick {
            if let kick = old.kick { office.poller.forget(kick.number) }
            if let kick = signals.kick { watch(kick, of: queue, office) }
        }
        let callChanged = old.call !== signals.call
        unsafe places[place].signals = signals
        if callChanged {
            unsafe places[place].queue.setCall(signals.call?.number ?? -1)
            unsafe places[place].queue.interrupt()
        }
    }

    private func watch(_ kick: SharedFD, of queue: Int, _ office: borrowing LoopOffice) {
        do throws(Errno) {
            try office.poller.watch(kick.number, token: 0, edge: true)
        } catch {
            office.log.error("cannot wait for kicks: \(error)", metadata: ["queue": "\(queue)"])
        }
    }

    /// Nobody is woken by a kick any more, or again: what has come meanwhile wakes at once.
    func forgetKicks(_ office: borrowing LoopOffice) {
        for place in 0..<count {
            if let kick = unsafe places[place].signals.kick { office.poller.forget(kick.number) }
        }
    }

    func watchKicks(_ office: borrowing LoopOffice) {
        for place in 0..<count {
            if let kick = unsafe places[place].signals.kick {
                unsafe watch(kick, of: places[place].queue.index, office)
            }
        }
    }

    private mutating func detach(_ place: Int, _ faults: StorageFaults, _ office: inout LoopOffice) {
        let finished = unsafe (places + place).move()
        count -= 1
        unsafe placeOfQueue[finished.queue.index] = -1
        if place < count {
            unsafe (places + place).initialize(to: (places + count).move())
            unsafe placeOfQueue[places[place].queue.index] = place
        }
        if let kick = finished.signals.kick { office.poller.forget(kick.number) }
        var report = QueueReport(counts: finished.queue.counts, faults: faults)
        report.counts.subtract(finished.countsBefore)
        report.faults.subtract(office.reportedFaults)
        office.reportedFaults = faults
        let (command, base) = (finished.detachCommand, finished.queue.base)
        // Its memory and its descriptors are let go of before anybody is told so.
        _ = consume finished
        office.mailbox.answer(command, .detached(base: base, report))
    }
}
