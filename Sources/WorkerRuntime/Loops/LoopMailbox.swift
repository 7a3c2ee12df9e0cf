internal import BlockTarget
internal import Custody
internal import Inflight
internal import Platform
internal import Synchronization
internal import Telemetry
internal import Virtio

/// An eventfd that the session and a loop both hold: the last one to let go closes it.
final class SharedFD: Sendable {
    private let event: EventFD

    init(_ event: consuming EventFD) {
        self.event = event
    }

    var number: Int32 { event.fd.number }
}

/// A queue to be served: where it lies, checked, and what it signals.
struct QueueAttachment: Sendable {
    var index: Int
    var size: UInt16
    var features: UInt64
    /// Host addresses of the three areas, which lie in `memory`.
    var descriptors: UInt
    var available: UInt
    var used: UInt
    /// Where the queue goes on (SET_VRING_BASE).
    var base: UInt32
    var memory: GuestMemory
    /// Where requests in flight are logged; nil: nowhere.
    var inflight: InflightRegion?
    var writesThrough: Bool
    var signals: QueueSignals
    /// Where operations under way are recorded; nil: nowhere.
    var ownership: Ownership?
    var marks: QueueMarks?
    /// Where it counts.
    var statistics: DeviceStatistics

    /// The ring is a packed one.
    var isPacked: Bool { features & RingLayout.packedFeature != 0 }
}

/// A device that this worker has claimed.
struct Ownership: Sendable {
    var record: SessionRecord
    /// The number of this worker.
    var generation: UInt64
    /// What the worker before was handling when it died by its own fault; nil: nothing, or it did not.
    var suspect: Suspect?
}

/// Where a queue marks what it writes to guest memory.
struct QueueMarks: Sendable {
    var log: DirtyLog
    /// What the device writes of the ring; empty: not to be marked.
    var ring: [WriteMarks.GuestRange]
    /// Tells of new marks; nil: nothing does.
    var event: SharedFD?
}

/// The eventfds of a queue; nil where the driver gave none.
struct QueueSignals: Sendable {
    var kick: SharedFD?
    var call: SharedFD?
    var error: SharedFD?
}

/// What the session's thread asks of a loop.
enum LoopCommand: Sendable {
    case attach(QueueAttachment)
    /// Such a queue will be attached, in a take-over.
    case prepare(queue: Int, size: Int)
    /// Finish what was taken from the ring, then let go of it. Answered when that is done.
    ///
    /// - Parameter parking: requests that the storage has not begun with stay in the inflight log.
    case detach(queue: Int, parking: Bool = false)
    /// Take a `detach` back that has not been answered: go on taking requests.
    case keep(queue: Int)
    case setSignals(queue: Int, QueueSignals)
    /// Take up a change of the device, or of one queue.
    case change(queue: Int?, DeviceChange)
    /// All queues that were taken over are attached: begin to serve.
    case begin
    /// Answered when nothing is under way any more that a worker before this one has started.
    case settle
    /// Stop serving, with everything published that is done, and leave the ring to a successor. What the kernel has of
    /// this thread goes on.
    case park
    /// Serve on: `park` is taken back, whether it was carried out or not.
    case resume
    /// Mark elsewhere, or nowhere, from now on.
    case setMarks(queue: Int, QueueMarks?)
    case quit
}

extension LoopCommand {
    /// The queue that rings other eventfds when this is done, and which; nil: none does.
    fileprivate var change: (queue: Int, bells: [SharedFD])? {
        switch self {
        case .attach(let attachment):
            (attachment.index, attachment.signals.bells + [attachment.marks?.event].compactMap(\.self))
        case .setSignals(let queue, let signals): (queue, signals.bells)
        case .detach(let queue, _): (queue, [])
        case .prepare, .keep, .change, .setMarks, .begin, .settle, .park, .resume, .quit: nil
        }
    }
}

extension QueueSignals {
    /// Those that a loop rings.
    fileprivate var bells: [SharedFD] { [call, error].compactMap(\.self) }
}

/// A loop's answer to one command.
enum LoopReply: Sendable {
    var isRefusal: Bool {
        if case .refused = self { true } else { false }
    }

    case done
    /// So many completions of workers before wait in the ring.
    case tookUp(completions: Int)
    case attached(RecoveryPlan)
    /// It takes requests from now on, in nanoseconds of CLOCK_MONOTONIC. Whoever has asked may hear of it much later:
    /// the loop has work.
    case began(at: UInt64)
    case detached(base: UInt32, QueueReport)
    case refused(String)
}

/// Carries commands to one loop and its answers back. The session's thread waits for each answer for a bounded time;
/// one that comes after that is dropped.
final class LoopMailbox: Sendable {
    private struct Contents {
        var commands: [(number: UInt64, command: LoopCommand)] = []
        var replies: [(number: UInt64, reply: LoopReply)] = []
        /// Commands under way whose answer nobody waits for.
        var abandoned: Set<UInt64> = []
        var lastNumber: UInt64 = 0
        /// What the loop may be ringing, by queue: see `makeRoom`.
        var bells: [Int: [SharedFD]] = [:]
        /// Commands under way after which a queue rings something else.
        var changes: [UInt64: (queue: Int, bells: [SharedFD])] = [:]

        /// Keeps no bell that the loop rings no more, or never will: a front-end whose queues are refused would leave
        /// one behind with each try.
        mutating func settle(_ change: (queue: Int, bells: [SharedFD]), isRefused: Bool) {
            var rung = isRefused ? bells[change.queue, default: []] : change.bells
            for bell in change.bells where isRefused {
                if let place = rung.lastIndex(where: { $0 === bell }) { rung.remove(at: place) }
            }
            bells[change.queue] = rung.isEmpty ? nil : rung
        }
    }

    /// How long a loop may leave a command unanswered before somebody looks whether a peer keeps it, in milliseconds.
    private static let patience: UInt64 = 100

    private let contents = Mutex(Contents())
    /// Set while a command waits: what a polling loop looks at.
    private let flag = Atomic<Bool>(false)
    /// What a sleeping loop is woken by.
    let wakeUp: EventFD
    private let answered: EventFD

    init() throws(Errno) {
        let wakeUp = try EventFD()
        let answered = try EventFD()
        self.wakeUp = wakeUp
        self.answered = answered
    }

    /// Whether a command waits. Costs one load.
    var hasCommand: Bool { flag.load(ordering: .acquiring) }

    /// The oldest command that waits; called by the loop.
    func take() -> (number: UInt64, command: LoopCommand)? {
        contents.withLock { contents in
            guard !contents.commands.isEmpty else { return nil }
            let first = contents.commands.removeFirst()
            if contents.commands.isEmpty { flag.store(false, ordering: .releasing) }
            return first
        }
    }

    /// Answers a command; called by the loop.
    func answer(_ number: UInt64, _ reply: LoopReply) {
        contents.withLock { contents in
            if let change = contents.changes.removeValue(forKey: number) {
                contents.settle(change, isRefused: reply.isRefusal)
            }
            if contents.abandoned.remove(number) == nil { contents.replies.append((number, reply)) }
        }
        answered.signal()
    }

    /// Sends a command; called by the session's thread, which asks for the answer later or abandons it.
    ///
    /// - Returns: the command's number.
    func post(_ command: LoopCommand) -> UInt64 {
        let number = contents.withLock { contents in
            contents.lastNumber += 1
            contents.commands.append((contents.lastNumber, command))
            if let change = command.change {
                contents.changes[contents.lastNumber] = change
                contents.bells[change.queue, default: []] += change.bells
            }
            flag.store(true, ordering: .releasing)
            return contents.lastNumber
        }
        wakeUp.signal()
        return number
    }

    /// A queue was attached without a command.
    func noteBells(of attachment: QueueAttachment) {
        guard let change = LoopCommand.attach(attachment).change else { return }
        contents.withLock { $0.settle(change, isRefused: false) }
    }

    /// Waits for the answer to a command, and gives it up when it does not come; called by the session's thread.
    ///
    /// - Returns: nil when no answer came in time. The command stays in force.
    func wait(for number: UInt64, milliseconds limit: Int) -> LoopReply? {
        let reply = answer(to: number, until: monotonicNanoseconds() + UInt64(limit) * 1_000_000)
        if reply == nil { abandon(number) }
        return reply
    }

    /// Waits for the answer to a command; called by the session's thread.
    ///
    /// - Parameter deadline: on the clock of `monotonicNanoseconds`; one that has passed does not wait.
    /// - Returns: nil when it has not come by then.
    func answer(to number: UInt64, until deadline: UInt64) -> LoopReply? {
        while true {
            let reply: LoopReply? = contents.withLock { contents in
                guard let place = contents.replies.firstIndex(where: { $0.number == number }) else { return nil }
                return contents.replies.remove(at: place).reply
            }
            if let reply { return reply }
            let now = monotonicNanoseconds()
            guard now < deadline else { return nil }
            let rest = Int32(clamping: min((deadline - now) / 1_000_000 + 1, Self.patience))
            if waitForInput(answered.fd.number, milliseconds: rest) { answered.clear() } else { makeRoom() }
        }
    }

    /// Readable when a command has been answered, or `look` has not been called since.
    var answerNumber: Int32 { answered.fd.number }

    /// Looks for the answer to a command, once `answerNumber` is readable; called by the session's thread.
    func look(for number: UInt64) -> LoopReply? {
        answered.clear()
        return answer(to: number, until: 0)
    }

    /// A peer that fills an eventfd and makes it blocking again lets the loop wait when it rings. The bells are emptied
    /// then, those only that are full.
    private func makeRoom() {
        let bells = contents.withLock { $0.bells.values.flatMap(\.self) }
        for bell in bells { EventFD.makeRoom(in: bell.number) }
    }

    /// Nobody will ask for this command's answer.
    func abandon(_ number: UInt64) {
        contents.withLock { contents in
            let isAnswered = contents.replies.contains { $0.number == number }
            contents.replies.removeAll { $0.number == number }
            if !isAnswered { contents.abandoned.insert(number) }
        }
    }
}
