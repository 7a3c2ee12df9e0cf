internal import Custody
internal import Inflight
internal import Logging
internal import Platform
internal import Telemetry
internal import Uring
internal import VhostUser

/// The time in which this worker has the device: from the claim until it is given up.
struct Tenure: ~Copyable {
    let generation: UInt64
    /// What was found, for the log.
    let summary: String
    private let device: ServedDevice
    let loops: [LoopThread]
    private let record: SessionRecord
    private let link: SupervisorLink
    private let takeOver: TakeOver
    private let log: Logger
    private var connection: KeptConnection?
    /// Of a mount, in place of a connection.
    private var mount: MountConnection?
    /// The loops that may have operations of a worker before under way, and the command that each will answer.
    private var settling: [(mailbox: LoopMailbox, command: UInt64)]
    /// A size whose change has not been answered yet.
    private var resizing: ResizeOrder?

    /// Takes the device up where the worker before has left it.
    ///
    /// - Throws: why it cannot be served.
    init(
        _ claim: Claim, _ configuration: WorkerConfiguration, _ takeOver: TakeOver, _ standby: Standby, _ log: Logger
    ) throws {
        let start = monotonicNanoseconds()
        let (record, link, device) = (takeOver.record, takeOver.link, standby.device)
        let loops = device.loops
        let takenUp = loops.map { $0.takeUp(record) }
        device.takeUp(Ownership(record: record, generation: claim.generation, suspect: claim.suspect))
        try device.takeUpStorage()
        device.lookAtStorage(announcing: false, isTakeOver: true)
        let connection: KeptConnection?
        do {
            connection = try Self.connect(device, takeOver, standby)
        } catch let error as ControlStateError where claim.predecessor != nil {
            // No worker could go on with it, so the front-end has to begin anew, or another one: else the device would
            // be nobody's for good. A candidate of an upgrade refuses instead: the old worker may know better.
            Self.giveUp(error, device, takeOver, log)
            connection = nil
        }
        let mount = try Self.mount(device, takeOver)
        let beginning = loops.map { ($0.mailbox, $0.begin()) }
        let microseconds = (monotonicNanoseconds() - start) / 1000
        for (index, reply) in takenUp.enumerated() { try Self.see(reply, loop: index, log) }
        var serving: UInt64 = 0
        for (index, (mailbox, command)) in beginning.enumerated() {
            let reply = mailbox.answer(to: command, until: start + Self.answerLimit)
            if case .began(let time) = reply { serving = max(serving, time) }
            try Self.see(reply, loop: index, log)
        }
        takeOver.statistics.noteServing(deathKnownSince: claim.predecessor.map { _ in claim.time }, at: serving)
        device.logRecoveries()
        for note in device.takeNotes() { link.tell(CustodyMessage(.event, text: note)) }
        let summary =
            (claim.predecessor.map { "took over from process \($0), which died," } ?? "took up the device")
            + " in \(microseconds) us" + (claim.note.map { "; \($0)" } ?? "")
        log.notice("\(summary)")
        settling = loops.map { ($0.mailbox, $0.mailbox.post(.settle)) }
        self.connection = connection
        self.mount = mount
        self.summary = summary
        self.device = device
        self.loops = loops
        self.record = record
        self.link = link
        self.takeOver = takeOver
        self.log = log
        generation = claim.generation
    }

    /// How long a loop may take to answer what needs no storage, in nanoseconds.
    private static let answerLimit: UInt64 = 10_000_000_000

    /// Looks at what a loop says of the take-over.
    private static func see(_ reply: LoopReply?, loop: Int, _ log: Logger) throws(SystemError) {
        switch reply {
        case .tookUp(let completions) where completions > 0:
            log.notice(
                "the kernel has finished requests of a worker before",
                metadata: ["loop": "\(loop)", "completions": "\(completions)"])
        case .refused(let reason):
            throw SystemError(cannot: "take over", "loop \(loop)", nil, advice: reason)
        case nil: throw SystemError(cannot: "take over", "loop \(loop)", nil, advice: "It does not answer")
        default: break
        }
    }

    /// Takes the connection up that is in custody; nil when there is none.
    ///
    /// - Parameter standby: what is ready, and was replayed on the device already, if the record says the same still.
    private static func connect(
        _ device: ServedDevice, _ takeOver: TakeOver, _ standby: Standby? = nil
    ) throws -> KeptConnection? {
        guard device.mount == nil, let fd = try takeOver.link.descriptors.duplicate(CustodyKey(.connection)) else {
            return nil
        }
        takeOver.record.noteThread(currentThreadNumber(), ring: takeOver.journalRingNumber)
        let replay = try standby?.replay ?? Replay(takeOver, on: device)
        let ring = try standby?.takeJournalRing() ?? takeOver.journalRing()
        var connection = try KeptConnection(
            stream: UnixStream(owning: fd), device: device, record: takeOver.record, link: takeOver.link,
            ring: JournalRing(ring), replay: replay)
        device.startAwaiting()
        device.forgetStoppedQueues()
        device.expectOwedAcknowledgement()
        try connection.finish(replay.exchange)
        return connection
    }

    /// Ends a connection that cannot be gone on with: the front-end sees its end when the supervisor has heard of it.
    private static func giveUp(_ error: ControlStateError, _ device: ServedDevice, _ takeOver: TakeOver, _ log: Logger)
    {
        log.error("the front-end has to connect again: \(error)")
        device.reset(keepingMemory: false)
        takeOver.record.commit(ControlState().encode())
        forgetConnection("\(error)", takeOver.link)
    }

    /// Lets go of what goes with a connection, here and with the supervisor.
    private static func forgetConnection(_ reason: String, _ link: SupervisorLink) {
        link.descriptors.removeAll([
            .connection, .memory, .kick, .call, .error, .dirtyLog, .dirtyLogEvent, .backendChannel, .sharedInflight,
            .fuseDevice, .fuseRequests,
        ])
        link.tell(CustodyMessage(.disconnected, text: reason))
    }

    /// Takes a mount up that is in custody; nil when there is none.
    private static func mount(_ device: ServedDevice, _ takeOver: TakeOver) throws -> MountConnection? {
        guard let mount = device.mount, let fd = try takeOver.link.descriptors.duplicate(CustodyKey(.connection)) else {
            return nil
        }
        takeOver.record.noteThread(currentThreadNumber(), ring: takeOver.journalRingNumber)
        return try MountConnection(stream: UnixStream(owning: fd), device: mount, takeOver: takeOver)
    }

    /// To be watched for input; -1 when there is none.
    var connectionNumber: Int32 {
        if let number = mountNumber { return number }
        switch connection {
        case .some(let connection): return connection.isWaitingForSupervisor ? -1 : connection.number
        case .none: return -1
        }
    }

    /// How long to sleep at most, in milliseconds; nil: until something happens. What waits for the supervisor is tried
    /// again: nothing tells that it is back if it died between hearing what was offered and saying so.
    var patience: Int32? {
        if let wait = wait { return wait }
        return device.mustAnnounce ? 0 : nil
    }

    /// How long until the front-end's message that waits for the supervisor is tried again; nil: none does.
    private var wait: Int32? {
        switch connection {
        case .some(let connection): connection.isWaitingForSupervisor ? connection.retryMilliseconds : nil
        case .none: nil
        }
    }

    private var mountNumber: Int32? {
        switch mount {
        case .some(let mount): mount.number
        case .none: nil
        }
    }

    /// Readable when a loop may have settled.
    var settlingNumbers: [Int32] { settling.map { $0.mailbox.answerNumber } }

    /// Whether nothing is under way any more that a worker before has started; told once.
    mutating func hasJustSettled() -> Bool {
        guard !settling.isEmpty else { return false }
        settling.removeAll { $0.mailbox.look(for: $0.command) != nil }
        return settling.isEmpty
    }

    /// A front-end's connection has been given.
    mutating func takeConnection() throws {
        guard connection == nil, mount == nil else { return }
        connection = try Self.connect(device, takeOver)
        mount = try Self.mount(device, takeOver)
    }

    /// Carries out the front-end's next message; when none waits, tells it of a change of the configuration.
    mutating func serveFrontend() {
        if device.mount != nil { return serveMount() }
        device.receiveFromChannel()
        // Not before what the front-end has sent is answered: it would take the news for the answer.
        if serveConnection() || !device.mustAnnounce || wait != nil { return }
        device.announce()
        answerResize("")
    }

    private mutating func serveMount() {
        guard var current = mount.take() else { return }
        do throws(MountConnection.End) {
            try current.receive()
            mount = consume current
        } catch {
            current.end()
            forgetConnection(error.reason)
        }
    }

    /// Carries out the next message.
    ///
    /// - Returns: whether there was one.
    private mutating func serveConnection() -> Bool {
        guard var current = connection.take() else { return false }
        let wasWaiting = current.isWaitingForSupervisor
        do throws(ConnectionEnd) {
            switch try current.serveOne() {
            case .nothing:
                if current.isWaitingForSupervisor, !wasWaiting {
                    log.warning(
                        "the front-end's message waits: batond does not answer, and has to keep what came with it")
                }
                connection = consume current
                return false
            case .message(let kind): log.debug("\(kind)")
            case .refused(let refusal): log.warning("a message was refused: \(refusal)")
            }
            connection = consume current
        } catch {
            end(current, "\(error)")
        }
        return true
    }

    /// Takes up another size of the disk. It is answered when the front-end has been told.
    mutating func resize(_ order: ResizeOrder) {
        resizing = order
        if let refusal = device.resize(to: order.bytes, isShrinking: order.isShrinking) { answerResize(refusal) }
    }

    private mutating func answerResize(_ refusal: String) {
        guard let order = resizing else { return }
        resizing = nil
        link.tell(CustodyMessage(answering: order, refusal: refusal))
    }

    /// The socket of the device's own requests; -1 when there is none.
    var channelNumber: Int32 { device.channelNumber }

    /// Ends the connection.
    mutating func disconnect(_ reason: String) {
        guard let current = connection.take() else { return }
        end(current, reason)
    }

    private func end(_ connection: consuming KeptConnection, _ reason: String) {
        connection.end()
        forgetConnection(reason)
    }

    private func forgetConnection(_ reason: String) {
        let report = device.takeReport()
        log.info("the connection has ended: \(reason)", metadata: report.metadata)
        Self.forgetConnection(reason, link)
    }

    /// How long the loops may take to stop together, in nanoseconds: less than the supervisor waits.
    private static let parkLimit: UInt64 = 5_000_000_000

    /// Gives the device up: nothing is taken or answered any more, what is finished is published. What the kernel has
    /// of this worker's threads goes on, and completes for the successor; the threads stay, asleep.
    ///
    /// - Returns: nil; or why it cannot be given up now, as a sentence: then it is served as before. A thread that is
    ///   in a system call which does not return is no reason to end the others.
    mutating func freeze() -> String? {
        let start = monotonicNanoseconds()
        for (mailbox, command) in settling { mailbox.abandon(command) }
        settling = []
        let parking = loops.map { $0.post(.park) }
        for (index, loop) in loops.enumerated() {
            if loop.mailbox.answer(to: parking[index], until: start + Self.parkLimit) != nil { continue }
            takeBack(parking)
            return "loop \(index) has not stopped within \(Self.parkLimit / 1_000_000_000) s"
        }
        takeOver.statistics.noteStop(at: start)
        record.noteFatalSignals(nil)
        record.release(generation)
        return nil
    }

    /// The device is another's: closes what goes with a tenure.
    mutating func letGo() {
        connection = nil
        mount = nil
    }

    /// Lets the loops serve on. One that does not answer finds both commands, in their order, when it does.
    private mutating func takeBack(_ parking: [UInt64]) {
        for (loop, command) in zip(loops, parking) {
            loop.mailbox.abandon(command)
            loop.mailbox.abandon(loop.post(.resume))
        }
        settling = loops.map { ($0.mailbox, $0.mailbox.post(.settle)) }
    }

    /// Finishes what was taken. The front-end sees its connection end when the process does.
    mutating func finish() {
        device.stopAll()
        for loop in loops { _ = loop.stop() }
    }
}
