internal import Platform
internal import Synchronization
internal import Virtio

/// A descriptor that the session and a loop both hold: the last one to let go closes it.
final class SharedFD: Sendable {
    let fd: OwnedFD

    init(_ fd: consuming OwnedFD) {
        self.fd = fd
    }

    var number: Int32 { fd.number }
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
    var nextAvailable: UInt16
    var memory: GuestMemory
    var writesThrough: Bool
    var signals: QueueSignals
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
    /// Finish what was taken from the ring, then let go of it. Answered when that is done.
    case detach(queue: Int)
    case setSignals(queue: Int, QueueSignals)
    case setWritesThrough(queue: Int, Bool)
    case quit
}

/// A loop's answer to one command.
enum LoopReply: Sendable {
    case done
    case detached(nextAvailable: UInt16, QueueReport)
    case refused(String)
}

/// Carries commands to one loop and its answers back. One command is under way at a time; the session's thread waits
/// for its answer for a bounded time. An answer that comes too late is dropped: it carries the number of a command that
/// nobody waits for any more.
final class LoopMailbox: Sendable {
    private struct Contents {
        var commands: [(number: UInt64, command: LoopCommand)] = []
        var replies: [(number: UInt64, reply: LoopReply)] = []
        var lastNumber: UInt64 = 0
    }

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
        contents.withLock { $0.replies.append((number, reply)) }
        answered.signal()
    }

    /// Sends a command and waits for its answer; called by the session's thread.
    ///
    /// - Returns: nil when no answer came in time. The command stays in force.
    func send(_ command: LoopCommand, waitingMilliseconds limit: Int) -> LoopReply? {
        let number = contents.withLock { contents in
            contents.lastNumber += 1
            contents.replies.removeAll()
            contents.commands.append((contents.lastNumber, command))
            flag.store(true, ordering: .releasing)
            return contents.lastNumber
        }
        wakeUp.signal()
        let deadline = monotonicNanoseconds() + UInt64(limit) * 1_000_000
        while true {
            let reply = contents.withLock { contents in contents.replies.first { $0.number == number }?.reply }
            if let reply { return reply }
            let now = monotonicNanoseconds()
            guard now < deadline else { return nil }
            if waitForInput(answered.fd.number, milliseconds: Int32((deadline - now) / 1_000_000 + 1)) {
                answered.clear()
            }
        }
    }
}
