internal import BlockTarget
internal import Custody
internal import Logging
internal import Platform
internal import Synchronization

/// A loop, its thread, and the way to talk to it. Owned by the session's thread.
final class LoopThread {
    let mailbox: LoopMailbox
    private var thread: JoinableThread?
    /// Milliseconds to wait for an answer that needs no storage.
    private static let answerLimit = 10_000

    /// Starts a loop on a backend.
    ///
    /// - Parameters:
    ///   - cpu: the CPU to bind the thread to, or nil.
    ///   - backend: consumed by the thread.
    ///   - ownership: of a device that is taken over: the loop then holds until it is told to begin.
    init<Backend: StorageBackend & ~Copyable & Sendable>(
        index: Int, backend: consuming Backend, disk: DiskDescription, pollMicroseconds: Int, cpu: Int?,
        ownership: Ownership? = nil, log: Logger
    ) throws(SystemError) {
        do throws(Errno) {
            let mailbox = try LoopMailbox()
            self.mailbox = mailbox
            let loop = try BlockLoop(
                index: index, backend: backend, disk: disk, mailbox: mailbox, pollMicroseconds: pollMicroseconds,
                ownership: ownership, log: log)
            let parcel = Parcel(loop)
            thread = try JoinableThread(name: "loop-\(index)") {
                guard var loop = parcel.take() else { return }
                ownership?.record.noteThread(currentThreadNumber(), ring: index)
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
        mailbox.send(command, waitingMilliseconds: Self.answerLimit) ?? .refused("the loop does not answer")
    }

    /// Lets the loop end and waits for its thread.
    ///
    /// - Returns: false when the loop does not answer; its thread is left behind.
    func stop() -> Bool {
        guard let thread = thread.take() else { return true }
        guard case .done = command(.quit) else { return false }
        thread.join()
        return true
    }
}

/// Hands a noncopyable value to another thread, once.
private final class Parcel<Value: ~Copyable & Sendable>: Sendable {
    private let contents: Mutex<Value?>

    init(_ value: consuming Value) {
        contents = Mutex(value)
    }

    func take() -> Value? {
        contents.withLock { $0.take() }
    }
}
