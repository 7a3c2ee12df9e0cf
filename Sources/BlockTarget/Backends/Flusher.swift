internal import Glibc
public import Platform
public import Synchronization
public import Uring

/// A thread that puts a disk's data on stable storage for a loop in custody.
///
/// The ring could do it; the kernel would have a thread of its own, that belongs to the loop's, wait for the storage. A
/// loop that is killed then waits for that thread before anything else, and what else it had asked for completes for
/// nobody meanwhile: the reads of a guest would wait for a FLUSH that they have nothing to do with. Nobody waits for
/// this thread when it is killed: a FLUSH changes no data, and the next worker asks for it again.
///
/// Those that wait together are carried out together: one fdatasync for all that were asked for before it began.
public final class Flusher: Sendable {
    @usableFromInline let core: Core

    /// What handle and thread share.
    @usableFromInline final class Core: Sendable {
        private struct State {
            var asked: [UInt64] = []
            var done: [IOCompletion] = []
            var isOver = false
        }

        private let state: Mutex<State>
        private let capacity: Int
        let wakeUp: OwnedFD
        let news: EventFD
        private let file: Int32
        private let image: DiskImage?
        @usableFromInline let doneCount = Atomic<Int>(0)

        init(_ file: Int32, keepingOpen image: DiskImage?, capacity: Int) throws(Errno) {
            wakeUp = try makeBlockingEvent()
            news = try EventFD()
            var state = State()
            state.asked.reserveCapacity(capacity)
            state.done.reserveCapacity(capacity)
            self.state = Mutex(state)
            self.capacity = capacity
            self.file = file
            self.image = image
        }

        func ask(_ token: UInt64) {
            state.withLock { $0.asked.append(token) }
            signalEvent(wakeUp.number)
        }

        func end() {
            state.withLock { $0.isOver = true }
            signalEvent(wakeUp.number)
        }

        @usableFromInline
        func takeDone() -> IOCompletion? {
            state.withLock { state in
                let completion = state.done.popLast()
                doneCount.store(state.done.count, ordering: .relaxed)
                // What is added later is told of later.
                if state.done.isEmpty { news.clear() }
                return completion
            }
        }

        func run() {
            var batch: [UInt64] = []
            batch.reserveCapacity(capacity)
            while true {
                waitForEvent(wakeUp.number)
                let isOver = state.withLock { state in
                    swap(&state.asked, &batch)
                    return state.isOver
                }
                if isOver { return }
                if batch.isEmpty { continue }
                let result = synchronizeData(file)
                state.withLock { state in
                    for token in batch { state.done.append(IOCompletion(token: token, result: result)) }
                    doneCount.store(state.done.count, ordering: .releasing)
                }
                batch.removeAll(keepingCapacity: true)
                news.signal()
            }
        }
    }

    /// Starts the thread, which ends with this.
    ///
    /// - Parameters:
    ///   - image: is flushed, and kept open until the thread has ended.
    ///   - capacity: requests that can be under way at once.
    ///   - loop: its index.
    /// - Throws: when no thread or descriptor can be had.
    public convenience init(_ image: DiskImage, capacity: Int, loop: Int) throws(Errno) {
        try self.init(image.access.file, keepingOpen: image, capacity: capacity, loop: loop)
    }

    init(_ file: Int32, keepingOpen image: DiskImage?, capacity: Int, loop: Int) throws(Errno) {
        let core = try Core(file, keepingOpen: image, capacity: capacity)
        try JoinableThread(name: "flush-\(loop)") { core.run() }.detach()
        self.core = core
    }

    deinit { core.end() }

    /// Readable while something is done that nobody has taken.
    var descriptor: Int32 { core.news.fd.number }

    /// Has what was written so far put on stable storage.
    ///
    /// - Parameter token: comes back with the completion; at most `capacity` are under way.
    func ask(_ token: UInt64) { core.ask(token) }

    /// Takes what is done, in no order.
    @inlinable
    func nextCompletion() -> IOCompletion? {
        core.doneCount.load(ordering: .acquiring) == 0 ? nil : core.takeDone()
    }
}

/// fdatasync.
///
/// - Returns: 0, or a negative error number, as a ring would say it.
private func synchronizeData(_ file: Int32) -> Int32 {
    do throws(Errno) {
        try retryingInterrupts { fdatasync(file) }
        return 0
    } catch {
        return -error.rawValue
    }
}
