internal import CLinux
internal import Custody
internal import Logging
internal import Platform
internal import Uring
internal import VhostUser

/// A front-end's connection that outlives the worker: each message is looked at while it is in the socket, carried out,
/// committed to the session record, and only then taken from the socket and answered, by operations on a ring that
/// outlives the worker, too. So a successor knows at any moment what is done of a message and what is not.
///
/// | # | Last thing done | The successor |
/// |---|---|---|
/// | 1 | descriptors in custody | finds the message in the socket; carries it out |
/// | 2 | queues stopped, the change made | has the state before: starts the queues again, then as 1 |
/// | 3 | committed (before queues start) | starts the queues; finds the message in the socket: it changes nothing |
/// | 4 | committed, with the answer | asks the journal ring whether it was taken; takes it; answers |
/// | 5 | taken from the socket | answers, unless the journal ring says that it was answered |
/// | 6 | answered | notes that there is no exchange |
struct KeptConnection: ~Copyable {
    private var channel: MessageChannel
    private let device: ServedDevice
    private let record: SessionRecord
    private let link: SupervisorLink
    private var session: Session
    private var journal: SessionJournal
    private var ring: JournalRing
    private var serial: UInt64 = 0
    /// A message waits in the socket until the supervisor is back to keep its descriptors. The device is served
    /// meanwhile.
    private(set) var isWaitingForSupervisor = false
    /// How long until it is tried again, in milliseconds: longer each time, for each try is one more message that
    /// nobody reads. When the supervisor is back it answers those, and that is a reason to try at once.
    private(set) var retryMilliseconds = Self.firstRetry

    private static let firstRetry: Int32 = 1_000
    private static let longestRetry: Int32 = 30_000

    /// How long a completion may be owed by the kernel for an operation that does not wait.
    private static let owedMilliseconds = 1_000
    /// How long the front-end may leave an answer unread.
    private static let patience = 10_000

    /// Takes the connection up where the record says that it stands.
    ///
    /// - Parameter replay: has set the device up.
    /// - Throws: when it cannot be used.
    init(
        stream: consuming UnixStream, device: ServedDevice, record: SessionRecord, link: SupervisorLink,
        ring: consuming JournalRing, replay: Replay
    ) throws {
        channel = try MessageChannel(stream: stream)
        self.device = device
        self.record = record
        self.link = link
        self.ring = ring
        session = replay.session
        journal = replay.journal
    }

    var number: Int32 { channel.stream.fd.number }

    // MARK: Take-over

    /// Finishes the message that the worker before was answering.
    ///
    /// - Throws: why the connection has to end.
    mutating func finish(_ exchange: ControlState.Exchange?) throws(ConnectionEnd) {
        guard var exchange else { return }
        serial = exchange.serial
        try settle(&exchange)
        try conclude(&exchange)
    }

    /// Finds out what the worker before has done of an exchange.
    private mutating func settle(_ exchange: inout ControlState.Exchange) throws(ConnectionEnd) {
        let (taking, answering) = (exchange.takingToken, exchange.answeringToken)
        var index = exchange.index
        if exchange.unread > 0 {
            switch ring.outcome(token: taking, index: index, milliseconds: Self.owedMilliseconds) {
            case .notStarted: return
            case .completed(let count): exchange.unread -= max(0, Int(count))
            case .unknown: throw Self.silent
            }
            if exchange.unread > 0 { return }
            index &+= 1
        }
        guard !exchange.reply.isEmpty else { return }
        switch ring.outcome(token: answering, index: index, milliseconds: Self.owedMilliseconds) {
        case .notStarted: break
        case .completed(let count): exchange.reply.removeFirst(max(0, min(Int(count), exchange.reply.count)))
        case .unknown: throw Self.silent
        }
    }

    private static var silent: ConnectionEnd {
        .system(
            SystemError(
                cannot: "learn", "what became of the last message", nil,
                advice: "The front-end has to connect again"))
    }

    // MARK: Messages

    /// Reads one message, carries it out, and answers it.
    ///
    /// - Returns: `nothing` also for a message that has to wait.
    /// - Throws: why the connection has ended.
    mutating func serveOne() throws(ConnectionEnd) -> Served {
        // What is looked at stays in the socket, in front of the end.
        if isWaitingForSupervisor, hasHungUp(number) { throw .peerClosed }
        isWaitingForSupervisor = false
        guard var incoming = try channel.receive(peeking: true) else { return .nothing }
        let message = try incoming.lookedAtRequest()
        let (kind, size) = (incoming.header.kind, MessageHeader.size + incoming.header.payloadSize)
        let needsReply = incoming.header.flags.contains(.needReply)
        var fds = incoming.takeFDs()
        guard let slots = try keep(journal.slots(for: message), &fds) else { return waitForSupervisor() }
        let before = journal.slots
        let outcome = carryOut(session.receive(message, needsReply: needsReply), &fds, committing: (message, slots))
        var exchange = ControlState.Exchange(unread: size, serial: serial, index: 0, reply: [])
        switch outcome.last {
        case .call, .done: break
        case .reply(let reply):
            if case .inflight = reply, let file = outcome.file {
                exchange.slot = JournalSlot(.inflight)
                // Asked for once more, it is made once more.
                guard try keep(file.fd, JournalSlot(.inflight)) else { return waitForSupervisor() }
            }
            exchange.reply = reply.encode(to: kind)
        case .refuse: exchange.reply = BackendReply.failure.encode(to: kind)
        case .close(let refusal): throw .refused(refusal)
        }
        retryMilliseconds = Self.firstRetry
        if case .refuse = outcome.last {
        } else {
            journal.note(message, slots: slots, base: outcome.base)
        }
        try conclude(&exchange)
        device.forgetStoppedQueues()
        release(before.union(slots).subtracting(journal.slots).subtracting([JournalSlot(.inflight)]))
        if case .refuse(let refusal) = outcome.last { return .refused(refusal) }
        return .message(kind)
    }

    /// What carrying out a message has come to.
    private struct Outcome {
        var last: SessionStep
        var file: InflightFile?
        var base: UInt32?
    }

    /// Makes the calls of a message.
    ///
    /// - Parameter committing: the message, which is committed before a queue starts: what a queue has taken is lost
    ///   for a successor that does not know that it ran.
    private mutating func carryOut(
        _ first: SessionStep, _ fds: inout ReceivedFDs, committing: (FrontendMessage, [JournalSlot])? = nil
    ) -> Outcome {
        var outcome = Outcome(last: first)
        var isCommitted = committing == nil
        while case .call(let call) = outcome.last {
            if case .startQueue = call, !isCommitted, let (message, slots) = committing {
                var after = journal
                after.note(message, slots: slots, base: outcome.base)
                commit(after, nil)
                isCommitted = true
            }
            let answer = call.perform(on: device, fds: &fds)
            switch answer {
            case .inflight(let made): outcome.file = made
            case .stopped(let base): outcome.base = base
            default: break
            }
            outcome.last = session.resume(answer)
        }
        return outcome
    }

    private func commit(_ journal: SessionJournal, _ exchange: ControlState.Exchange?) {
        var state = ControlState()
        state.journal = journal.messages
        state.exchange = exchange
        record.commit(state.encode())
    }

    /// Takes a message whose effect is made from the socket, and answers it.
    private mutating func conclude(_ exchange: inout ControlState.Exchange) throws(ConnectionEnd) {
        let end = monotonicNanoseconds() + UInt64(Self.patience) * 1_000_000
        while exchange.unread > 0 || !exchange.reply.isEmpty {
            serial += 1
            exchange.serial = serial
            exchange.index = ring.nextIndex
            commit(journal, exchange)
            ring.forget()
            if exchange.unread > 0 {
                let count = ring.discard(exchange.unread, from: number, token: exchange.takingToken)
                guard count > 0 else { throw .peerClosed }
                exchange.unread -= Int(count)
                if exchange.unread > 0 { continue }
            }
            guard !exchange.reply.isEmpty else { break }
            let fd = exchange.slot.flatMap { link.descriptors.number($0.key) }
            let count = ring.send(exchange.reply, with: fd, to: number, token: exchange.answeringToken)
            if count > 0 {
                exchange.reply.removeFirst(Int(count))
                exchange.slot = nil
            } else {
                guard Errno(rawValue: -count) == .wouldBlock else { throw .peerClosed }
                guard monotonicNanoseconds() < end else { throw .peerDoesNotRead }
                pause(milliseconds: 1)
            }
        }
        commit(journal, nil)
        ring.forget()
    }

    // MARK: Custody

    private mutating func waitForSupervisor() -> Served {
        isWaitingForSupervisor = true
        retryMilliseconds = min(2 * retryMilliseconds, Self.longestRetry)
        return .nothing
    }

    /// Gives a message's descriptors into custody; they stay with the message, too.
    ///
    /// - Returns: where they are; nil when the supervisor does not answer.
    private func keep(_ slots: [JournalSlot], _ fds: inout ReceivedFDs) throws(ConnectionEnd) -> [JournalSlot]? {
        guard !slots.isEmpty else { return [] }
        var all = ReceivedFDs()
        for slot in slots {
            guard let fd = fds.takeFirst() else { break }
            guard try keep(fd, slot) else { return nil }
            all.append(fd)
        }
        fds = all
        return slots
    }

    private func keep(_ fd: borrowing OwnedFD, _ slot: JournalSlot) throws(ConnectionEnd) -> Bool {
        guard slot.canBeKept(fd) else {
            throw .system(
                SystemError(
                    cannot: "keep", "the descriptor of \(slot.key)", nil,
                    advice: "It is no \(slot.kindOfFile): the supervisor could wait for whoever is behind it"))
        }
        do throws(SystemError) {
            return try link.keepIfAnswered(fd, under: slot.key)
        } catch {
            throw .system(error)
        }
    }

    private func release(_ slots: Set<JournalSlot>) {
        for slot in slots { link.release(slot.key) }
    }

    /// The connection has ended: the device goes back to before the front-end came, and so does the record.
    mutating func end() {
        device.reset(keepingMemory: false)
        journal = SessionJournal()
        commit(journal, nil)
        ring.forget()
        device.forgetStoppedQueues()
    }
}

extension JournalSlot {
    /// Whether closing a descriptor waits for nobody. A front-end may give one of a file system of its own (FUSE), and
    /// not answer: the supervisor, which keeps it, would wait, and with it all devices. Here it is this worker alone.
    fileprivate func canBeKept(_ fd: borrowing OwnedFD) -> Bool {
        let magic = clinux_file_system_magic(fd.number)
        // ANON_INODE_FS_MAGIC and SOCKFS_MAGIC of linux/magic.h.
        let (isAnonymous, isSocket) = (magic == 0x0904_1934, magic == 0x534f_434b)
        return switch role {
        case .kick, .call, .error, .dirtyLogEvent: isAnonymous
        case .backendChannel: isSocket
        default: !isSocket && LockWorth(fileSystemMagic: magic) == .fence
        }
    }

    fileprivate var kindOfFile: String {
        switch role {
        case .kick, .call, .error, .dirtyLogEvent: "eventfd"
        case .backendChannel: "socket"
        default: "file of this host's memory or disks"
        }
    }

    /// Where the descriptor is in custody.
    var key: CustodyKey {
        let role: CustodyRole =
            switch self.role {
            case .memory: .memory
            case .kick: .kick
            case .call: .call
            case .error: .error
            case .dirtyLog: .dirtyLog
            case .dirtyLogEvent: .dirtyLogEvent
            case .backendChannel: .backendChannel
            case .inflight: .sharedInflight
            }
        return CustodyKey(role, UInt16(index))
    }
}
