internal import BlockTarget
internal import Custody
internal import Logging
internal import Platform
internal import Synchronization

/// A loop, its thread, and the way to talk to it. Owned by the session's thread.
final class LoopThread {
    let mailbox: LoopMailbox
    private var thread: JoinableThread?
    /// The loop, while it stands by: the session's thread has it then, and its own one waits for it. Nil from `begin`
    /// on.
    private var held: (any HeldLoop)?
    /// Milliseconds to wait for an answer that needs no storage.
    private static let answerLimit = 10_000

    /// Starts a loop.
    ///
    /// - Parameters:
    ///   - cpu: the CPU to bind the thread to, or nil.
    ///   - service: what it serves, consumed by the thread.
    ///   - standsBy: for a device that another worker may have: the loop holds until it is told to take up and begin.
    init<Service: LoopService & ~Copyable>(
        index: Int, service: consuming Service, pollMicroseconds: Int, cpu: Int?,
        standsBy: Bool = false, log: Logger
    ) throws(SystemError) {
        do throws(Errno) {
            let mailbox = try LoopMailbox()
            self.mailbox = mailbox
            let loop = try QueueLoop(
                index: index, service: service, mailbox: mailbox, pollMicroseconds: pollMicroseconds,
                standsBy: standsBy, log: log)
            let parcel = try Parcel(loop)
            if standsBy { held = parcel } else { parcel.handOver() }
            thread = try JoinableThread(name: "loop-\(index)") {
                guard var loop = parcel.take() else { return }
                if let cpu {
                    do throws(Errno) {
                        try pinCurrentThread(toCPU: cpu)
                    } catch {
                        log.warning("cannot bind loop \(index) to CPU \(cpu): \(error)")
                    }
                }
                loop.run()
            }
        } catch {
            throw SystemError(cannot: "start", "loop \(index)", error)
        }
    }

    /// Sends a command that the loop carries out at once.
    func command(_ command: LoopCommand) -> LoopReply {
        mailbox.wait(for: post(command), milliseconds: Self.answerLimit) ?? .refused("the loop does not answer")
    }

    /// Sends a command. A loop that stands by carries it out here and now: two switches of threads would cost more.
    ///
    /// - Returns: the command's number, whose answer the mailbox has.
    func post(_ command: LoopCommand) -> UInt64 {
        let number = mailbox.post(command)
        held?.attend()
        return number
    }

    /// Has the loop serve a queue. One that stands by is not asked by a command: a guest waits.
    func attach(_ attachment: QueueAttachment) -> LoopReply {
        guard let held else { return command(.attach(attachment)) }
        let reply = held.attach(attachment)
        if !reply.isRefusal { mailbox.noteBells(of: attachment) }
        return reply
    }

    /// Has a loop that stands by look where the worker before has left its ring.
    func takeUp(_ record: SessionRecord) -> LoopReply {
        held?.takeUp(record) ?? .refused("the loop does not stand by")
    }

    /// Gives a loop that stands by to its thread, which serves from now on.
    ///
    /// - Returns: the number of the command to begin.
    func begin() -> UInt64 {
        let number = mailbox.post(.begin)
        letGo()
        return number
    }

    private func letGo() {
        held?.handOver()
        held = nil
    }

    /// Lets the loop end and waits for its thread.
    ///
    /// - Returns: false when the loop does not answer; its thread is left behind.
    func stop() -> Bool {
        guard let thread = thread.take() else { return true }
        guard case .done = command(.quit) else { return false }
        letGo()
        thread.join()
        return true
    }
}

/// A loop that another thread than its own has.
private protocol HeldLoop: AnyObject {
    /// Carries out the commands that wait.
    func attend()
    func attach(_ attachment: QueueAttachment) -> LoopReply
    func takeUp(_ record: SessionRecord) -> LoopReply
    /// Lets its own thread have it.
    func handOver()
}

/// Hands a loop to its thread, once.
private final class Parcel<Service: LoopService & ~Copyable>: HeldLoop, Sendable {
    private let contents: Mutex<QueueLoop<Service>?>
    /// Blocking: the thread waits in read.
    private let ready: OwnedFD

    init(_ loop: consuming QueueLoop<Service>) throws(Errno) {
        ready = try makeBlockingEvent()
        contents = Mutex(loop)
    }

    func attend() { contents.withLock { $0?.obey() } }

    func attach(_ attachment: QueueAttachment) -> LoopReply {
        contents.withLock { $0?.attach(attachment) ?? Self.isGone }
    }

    func takeUp(_ record: SessionRecord) -> LoopReply { contents.withLock { $0?.takeUp(record) ?? Self.isGone } }

    private static var isGone: LoopReply { .refused("its own thread has the loop") }

    func handOver() { signalEvent(ready.number) }

    /// Waits for it.
    func take() -> QueueLoop<Service>? {
        waitForEvent(ready.number)
        return contents.withLock { $0.take() }
    }
}
