internal import BlockTarget
internal import CWire
internal import Custody
internal import Inflight
internal import Logging
internal import Platform
internal import Telemetry
internal import VhostUser
internal import Virtio

/// What a worker serves, as a vhost-user session sees it: what every virtio device has. Keeps what the session has set
/// up, and hands queues to the loops. `DiskDevice` and `ShareDevice` add what is theirs.
///
/// The session's thread owns it. A queue lives in loop `index % loops`, from `startQueue` until `stopQueue` has been
/// answered.
class ServedDevice: VhostUserDevice {
    struct Queue {
        var signals = QueueSignals()
        /// What it runs with; nil while it is stopped.
        var setup: QueueSetup?
        /// What it will run with when the device is this worker's.
        var awaiting: QueueSetup?
        var lastBase: UInt32 = 0
        var logging = QueueLogging.off
    }

    /// What every device is made of.
    struct Parts {
        var queueCount: Int
        /// The largest ring that is accepted.
        var maximumQueueSize: Int
        /// At least one.
        var loops: [LoopThread]
        /// How long a queue may take to finish what the kernel has of it.
        var drainMilliseconds: Int
        var pinsMemory = false
        var parksRequests = false
        /// The device may be another worker's: nothing of it is touched, queues that are to run wait for `takeUp`.
        var standsBy = false
        /// Where requests are logged if the front-end gives no place, in memory that outlives this process.
        var privateInflight: InflightRegion?
        /// Where the queues count.
        var statistics: DeviceStatistics
        var log: Logger
    }

    let loops: [LoopThread]
    let log: Logger
    let queueCount: Int
    let maximumQueueSize: Int
    private(set) var memory = GuestMemory([])
    var queues: [Queue]
    /// Where requests in flight are logged, if the front-end has given a place.
    private var inflight: InflightRegion?
    /// Where they are logged else, in memory that outlives this process; nil: nowhere.
    private let privateInflight: InflightRegion?
    let statistics: DeviceStatistics
    /// What this worker has claimed; nil: it is on its own, or stands by.
    private(set) var ownership: Ownership?
    private(set) var isStandingBy: Bool
    /// What finished queues have counted since the last `takeReport`.
    private var report = QueueReport()
    /// What the operator is to be told of, since `takeNotes`; one for each request that the logs have, at most.
    private var notes: [String] = []
    /// What queues have found in their logs and nobody has been told of.
    private var recoveries: [(queue: Int, plan: RecoveryPlan)] = []
    private let drainMilliseconds: Int
    private let pinsMemory: Bool
    let parksRequests: Bool
    /// Where writes to guest memory are marked, and what tells of marks.
    var dirtyLog: DirtyLog?
    var logEvent: SharedFD?
    var channel: BackendChannel?
    /// The front-end is to be told that the configuration has changed.
    var mustAnnounce = false
    /// All memory that was ever mapped is memory: pages of a file system of the front-end's own may never come.
    private var isMemoryPlain = true

    init(_ parts: Parts) {
        precondition(!parts.loops.isEmpty)
        queueCount = parts.queueCount
        maximumQueueSize = parts.maximumQueueSize
        loops = parts.loops
        drainMilliseconds = parts.drainMilliseconds
        pinsMemory = parts.pinsMemory
        parksRequests = parts.parksRequests
        isStandingBy = parts.standsBy
        privateInflight = parts.privateInflight
        statistics = parts.statistics
        log = parts.log
        queues = Array(repeating: Queue(), count: parts.queueCount)
    }

    // MARK: What a device adds

    var offeredFeatures: UInt64 { preconditionFailure("a device says what it offers") }
    var offersConfiguration: Bool { true }
    var offersDirtyLog: Bool { true }
    var configuration: [UInt8] { preconditionFailure("a device says what its configuration is") }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) throws(DeviceRefusal) {
        throw DeviceRefusal("nothing of the configuration can be written")
    }

    /// Whether a driver with these features is told of a write only when it is on stable storage.
    func writesThrough(_ features: UInt64) -> Bool { false }

    /// A queue is about to run: takes the right to what is served.
    func takeRight() throws(DeviceRefusal) {}
    /// No queue runs any more.
    func giveUpRight() {}
    /// What a loop has taken from a ring may be under way without end.
    func keepRightForGood() {}

    /// The device is this worker's from now on: takes up what it shares with workers before. Their threads have
    /// stopped.
    func takeUpStorage() throws(SystemError) {}

    /// Looks whether what is served has changed.
    ///
    /// - Parameters:
    ///   - announcing: tell the front-end to read the configuration in any case: it may have changed while no worker
    ///     ran.
    ///   - isTakeOver: take up whatever it has: what this worker knows may be older than what the one before has told
    ///     the front-end.
    func lookAtStorage(announcing: Bool, isTakeOver: Bool = false) {}

    /// Takes up the size that a supervisor says.
    ///
    /// - Returns: why it does not, as a sentence; nil when it has the new one.
    func resize(to bytes: UInt64, isShrinking: Bool) -> String? { "only disks have a size" }

    /// This device, if it is this host's kernel that uses it, and no front-end.
    var mount: MountDevice? { nil }

    /// The driver has gone, or starts anew: what it has set is as before it came.
    func forgetDriver() {}

    /// What tells that what is served may have changed; nil where nothing does.
    func watch() throws(Errno) -> FileWatch? { nil }

    /// As the log shows what is served.
    var metadata: Logger.Metadata { [:] }

    /// What all queues have done since this was last asked.
    func takeReport() -> QueueReport {
        defer { report = QueueReport() }
        return report
    }

    var maximumMemoryRegions: Int { 509 }

    func loop(of queue: Int) -> LoopThread { loops[queue % loops.count] }
}

// MARK: - Memory

extension ServedDevice {
    func replaceMemory(_ regions: [MemoryRegion], fds: consuming ReceivedFDs) throws(DeviceRefusal) {
        var mapped: [MappedRegion] = []
        for region in regions {
            guard let fd = fds.takeFirst() else { throw DeviceRefusal("a memory region came without a descriptor") }
            mapped.append(try map(region, fd))
        }
        try change(GuestMemory(mapped))
    }

    func addMemory(_ region: MemoryRegion, fd: consuming OwnedFD) throws(DeviceRefusal) {
        guard memory.regions.count < maximumMemoryRegions else { throw DeviceRefusal("all memory slots are taken") }
        try change(GuestMemory(memory.regions + [try map(region, fd)]))
    }

    func removeMemory(_ region: MemoryRegion) throws(DeviceRefusal) {
        let rest = memory.regions.filter { mapped in
            mapped.region.guestAddress != region.guestAddress || mapped.region.size != region.size
                || mapped.region.frontendAddress != region.frontendAddress
        }
        guard rest.count < memory.regions.count else { throw DeviceRefusal("there is no such memory region") }
        try change(GuestMemory(rest))
    }

    private func map(_ region: MemoryRegion, _ fd: borrowing OwnedFD) throws(DeviceRefusal) -> MappedRegion {
        if !isMemoryFile(fd) { isMemoryPlain = false }
        do throws(Errno) {
            return try MappedRegion(region, fd: fd, pinned: pinsMemory)
        } catch {
            let place = "\(region.size) bytes at guest address 0x\(String(region.guestAddress, radix: 16))"
            if pinsMemory, error == .noMemory || error == .notPermitted {
                throw DeviceRefusal("cannot pin \(place): raise the limit on locked memory (ulimit -l)")
            }
            throw DeviceRefusal(
                error == .invalidArgument
                    ? "the memory region of \(place) is larger than its file" : "cannot map \(place): \(error)")
        }
    }

    /// Moves running queues to new memory: each finishes what it has taken and starts again where it stood. One whose
    /// ring is no longer in memory stays stopped.
    private func change(_ new: GuestMemory) throws(DeviceRefusal) {
        var stopped: [(Int, QueueSetup)] = []
        var refusal: DeviceRefusal?
        for index in queues.indices where refusal == nil {
            guard var setup = queues[index].setup else { continue }
            do throws(DeviceRefusal) {
                setup.base = try drainQueue(index)
                stopped.append((index, setup))
            } catch {
                refusal = error
            }
        }
        // Refused: those that were stopped already go on in the old memory.
        if refusal == nil { memory = new }
        for (index, setup) in stopped {
            do throws(DeviceRefusal) {
                try startQueue(index, setup)
            } catch {
                log.warning("the queue stays stopped: \(error)", metadata: ["queue": "\(index)"])
            }
        }
        giveRightUpIfIdle()
        if let refusal { throw refusal }
    }
}

// MARK: - Requests in flight

extension ServedDevice {
    func makeInflight(queueCount: Int, queueSize: Int, packed: Bool) throws(DeviceRefusal) -> InflightFile {
        do throws(Errno) {
            let fd = try InflightRegion.makeFile(queueCount: queueCount, queueSize: queueSize, packed: packed)
            let size = InflightRegion.byteCount(queueCount: queueCount, queueSize: queueSize, packed: packed)
            return InflightFile(size: UInt64(size), fd: fd)
        } catch {
            throw DeviceRefusal("cannot make an inflight region: \(error)")
        }
    }

    func setInflight(_ description: InflightDescription, fd: consuming OwnedFD) throws(DeviceRefusal) {
        guard queues.allSatisfy({ $0.setup == nil }) else {
            throw DeviceRefusal("a queue runs already: its requests are logged elsewhere")
        }
        do throws(Errno) {
            inflight = try InflightRegion(
                fd: fd, offset: description.fileOffset, count: description.size,
                queueCount: Int(description.queueCount), queueSize: Int(description.queueSize))
        } catch {
            throw DeviceRefusal(
                error == .invalidArgument
                    ? "an inflight region of \(description.size) bytes does not hold"
                        + " \(description.queueCount) queues of \(description.queueSize)"
                    : "cannot map the inflight region: \(error)")
        }
    }
}

extension ServedDevice {
    /// What the operator is to be told of, once.
    func takeNotes() -> [String] {
        defer { notes = [] }
        return notes
    }

    /// Makes the log of every queue that does not run say nothing: what it says is of a driver that has gone. Not
    /// before a successor of this worker would know that the queue does not run.
    func forgetStoppedQueues() {
        for index in queues.indices where queues[index].setup == nil {
            privateInflight?.clear(queue: index)
            statistics.forgetRequests(queue: index)
        }
    }
}

// MARK: - Queues

extension ServedDevice {
    func setKick(_ fd: consuming OwnedFD?, queue: Int) throws(DeviceRefusal) {
        queues[queue].signals.kick = try share(fd, "kick", queue)
        passSignals(queue)
    }

    func setCall(_ fd: consuming OwnedFD?, queue: Int) throws(DeviceRefusal) {
        queues[queue].signals.call = try share(fd, "call", queue)
        passSignals(queue)
    }

    func setError(_ fd: consuming OwnedFD?, queue: Int) throws(DeviceRefusal) {
        queues[queue].signals.error = try share(fd, "error", queue)
        passSignals(queue)
    }

    /// Takes an eventfd. A loop that writes into anything else could be made to wait for ever, for the front-end or for
    /// a file.
    private func share(_ fd: consuming OwnedFD?, _ name: String, _ queue: Int) throws(DeviceRefusal) -> SharedFD? {
        guard let fd else { return nil }
        do throws(Errno) {
            return SharedFD(try EventFD(receiving: fd))
        } catch {
            throw DeviceRefusal("the \(name) descriptor of queue \(queue) cannot be used as an eventfd: \(error)")
        }
    }

    private func passSignals(_ queue: Int) {
        guard queues[queue].setup != nil else { return }
        _ = loop(of: queue).command(.setSignals(queue: queue, queues[queue].signals))
    }

    /// The device is this worker's from now on.
    func takeUp(_ ownership: Ownership) {
        self.ownership = ownership
        isStandingBy = false
    }

    /// Starts the queues that have waited for that.
    func startAwaiting() {
        for index in queues.indices {
            guard let setup = queues[index].awaiting.take() else { continue }
            do throws(DeviceRefusal) {
                try startQueue(index, setup)
            } catch {
                log.error("the queue is not gone on with: \(error)", metadata: ["queue": "\(index)"])
            }
        }
    }

    func startQueue(_ index: Int, _ setup: QueueSetup) throws(DeviceRefusal) {
        if isStandingBy {
            queues[index].awaiting = setup
            prepareQueue(index, setup)
            return
        }
        guard queues[index].setup == nil else { throw DeviceRefusal("queue \(index) runs already") }
        guard setup.size >= 1, setup.size <= maximumQueueSize, let size = UInt16(exactly: setup.size) else {
            throw DeviceRefusal("queue \(index) has \(setup.size) entries; 1 to \(maximumQueueSize) are possible")
        }
        let layout = RingLayout(size: setup.size, features: setup.features)
        let attachment = QueueAttachment(
            index: index, size: size, features: setup.features,
            descriptors: try resolve(setup.descriptorTable, layout.descriptors, index, "descriptor table"),
            available: try resolve(setup.availableRing, layout.driver, index, "available ring"),
            used: try resolve(setup.usedRing, layout.device, index, "used ring"),
            base: setup.base, memory: memory, inflight: inflight ?? privateInflight,
            writesThrough: writesThrough(setup.features), signals: queues[index].signals, ownership: ownership,
            marks: marks(index, setup), statistics: statistics)
        try takeRight()
        defer { giveRightUpIfIdle() }
        try attach(attachment)
        queues[index].setup = setup
        queues[index].lastBase = setup.base
    }

    /// Does of `startQueue` what takes time and touches nothing, before this worker has the device. What is wrong with
    /// the queue is told when it starts.
    private func prepareQueue(_ index: Int, _ setup: QueueSetup) {
        guard (1...maximumQueueSize).contains(setup.size) else { return }
        _ = loop(of: index).command(.prepare(queue: index, size: setup.size))
        guard isMemoryPlain else { return }
        let layout = RingLayout(size: setup.size, features: setup.features)
        for (address, area) in [
            (setup.descriptorTable, layout.descriptors), (setup.availableRing, layout.driver),
            (setup.usedRing, layout.device),
        ] {
            let place = unsafe memory.resolve(
                frontendAddress: address, count: area.byteCount, alignment: area.alignment)
            if let place = unsafe place { unsafe makePresent(place, area.byteCount) }
        }
    }

    /// Has the queue's loop serve it.
    func attach(_ attachment: QueueAttachment) throws(DeviceRefusal) {
        let index = attachment.index
        switch loop(of: index).attach(attachment) {
        case .refused(let reason):
            // A loop that has not answered in time may attach it yet: nobody would ever detach it.
            let mailbox = loop(of: index).mailbox
            let detaching = loop(of: index).post(.detach(queue: index))
            if mailbox.answer(to: detaching, until: monotonicNanoseconds() + 1_000_000_000) == nil {
                abandon(detaching, mailbox)
            }
            throw DeviceRefusal(reason)
        case .attached(let plan) where !plan.givenUp.isEmpty || !plan.setAside.isEmpty: note(plan, index)
        case .attached(let plan) where !plan.heads.isEmpty || plan.struckOff > 0:
            recoveries.append((index, plan))
            if ownership == nil { logRecoveries() }
        case .attached, .began, .done, .tookUp, .detached: break
        }
    }

    /// Logs what the queues found that have been started. In a take-over that is done when they serve: a guest waits.
    func logRecoveries() {
        for (queue, plan) in recoveries {
            log.notice(
                "a worker before left requests in flight: they go on",
                metadata: [
                    "queue": "\(queue)", "requests": "\(plan.heads.count)", "adopted": "\(plan.adopted)",
                    "published": "\(plan.struckOff)",
                ])
        }
        recoveries = []
    }

    /// Tells of requests that are given up. Others that go on are no news beside that.
    private func note(_ plan: RecoveryPlan, _ queue: Int) {
        ownership?.record.noteGivenUp(plan.newlyGivenUp)
        for head in plan.givenUp {
            notes.append("the request of queue \(queue), head \(head) is given up: workers died over it")
        }
        for head in plan.setAside {
            notes.append("the request of queue \(queue), head \(head) is left alone: workers died answering it")
        }
        for text in notes { log.error("\(text)") }
    }

    private func resolve(
        _ address: UInt64, _ area: RingLayout.Area, _ queue: Int, _ name: String
    ) throws(DeviceRefusal) -> UInt {
        guard
            let host = unsafe memory.resolve(
                frontendAddress: address, count: area.byteCount, alignment: area.alignment)
        else {
            let place = "0x\(String(address, radix: 16))"
            throw DeviceRefusal(
                "the \(name) of queue \(queue) at \(place) is not in guest memory or not aligned to"
                    + " \(area.alignment) bytes")
        }
        return UInt(bitPattern: host)
    }

    func stopQueue(_ index: Int) throws(DeviceRefusal) -> UInt32 {
        defer { giveRightUpIfIdle() }
        return try drainQueue(index)
    }

    func parkQueue(_ index: Int) throws(DeviceRefusal) -> UInt32 {
        defer { giveRightUpIfIdle() }
        return try stop(index, parking: true)
    }

    /// The right to what is served is ours as long as a queue runs.
    private func giveRightUpIfIdle() {
        if queues.allSatisfy({ $0.setup == nil }) { giveUpRight() }
    }

    /// Waits no more for a loop's answer. What the loop has taken from a ring may be under way without end.
    private func abandon(_ command: UInt64, _ mailbox: LoopMailbox) {
        mailbox.abandon(command)
        keepRightForGood()
    }

    private func drainQueue(_ index: Int) throws(DeviceRefusal) -> UInt32 { try stop(index, parking: false) }

    private func stop(_ index: Int, parking: Bool) throws(DeviceRefusal) -> UInt32 {
        if let setup = queues[index].awaiting.take() { return setup.base }
        guard queues[index].setup != nil else { return queues[index].lastBase }
        let mailbox = loop(of: index).mailbox
        let number = loop(of: index).post(.detach(queue: index, parking: parking))
        if let reply = mailbox.answer(to: number, until: drainDeadline()) { return try stopped(index, reply) }
        // What is refused changes nothing: the queue goes on being served. It may have finished at the last moment.
        _ = loop(of: index).command(.keep(queue: index))
        switch mailbox.answer(to: number, until: 0) {
        case .some(.detached(let base, let report)):
            return try stopped(index, .detached(base: base, report))
        case .some: break
        case nil: mailbox.abandon(number)
        }
        throw DeviceRefusal(
            "queue \(index) has requests that the storage has not finished in \(drainMilliseconds) ms")
    }

    /// Notes how a queue has stopped.
    ///
    /// - Returns: where it would go on.
    private func stopped(_ index: Int, _ reply: LoopReply) throws(DeviceRefusal) -> UInt32 {
        queues[index].setup = nil
        guard case .detached(let base, let finished) = reply else {
            throw DeviceRefusal("queue \(index) was not there any more")
        }
        report.counts.add(finished.counts)
        report.faults.add(finished.faults)
        queues[index].lastBase = base
        return base
    }

    private func drainDeadline() -> UInt64 { monotonicNanoseconds() + UInt64(drainMilliseconds) * 1_000_000 }

    func reset(keepingMemory: Bool) {
        stopAll()
        queues = Array(repeating: Queue(), count: queues.count)
        giveRightUpIfIdle()
        forgetDriver()
        inflight = nil
        guard !keepingMemory else { return }
        memory = GuestMemory([])
        dirtyLog = nil
        logEvent = nil
        channel = nil
    }

    /// Stops all queues when what they have taken is finished.
    func stopAll() {
        // All at once, so that the wait is bounded for the device and not for each of its queues.
        let deadline = drainDeadline()
        let running = queues.indices.filter { queues[$0].setup != nil }
        let commands = running.map { ($0, loop(of: $0).post(.detach(queue: $0))) }
        for (index, number) in commands {
            let mailbox = loop(of: index).mailbox
            if let reply = mailbox.answer(to: number, until: deadline) {
                _ = try? stopped(index, reply)
                continue
            }
            // The loop goes on waiting, with its own hold on the memory.
            abandon(number, mailbox)
            log.error(
                "the storage has not finished all requests in time: the queue is refused until it has",
                metadata: ["queue": "\(index)", "milliseconds": "\(drainMilliseconds)"])
        }
    }
}
