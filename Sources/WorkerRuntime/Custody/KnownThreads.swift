internal import Custody
internal import Glibc
internal import Platform

/// The threads of other workers of the device, as the supervisor has shown them: a worker in namespaces of its own sees
/// no process but those of its device, and no /proc.
///
/// They are shown before they matter: of the worker that has the device when another is equipped, and again when it
/// says that it has the device. A worker that takes over from one that nobody has shown waits for the supervisor.
final class KnownThreads {
    private var sights: [ThreadName: ThreadSight] = [:]
    /// Processes of which nothing is left.
    private var ended: [Int32] = []

    /// Of 16 workers with 16 loops each, and more.
    private static let maximumCount = 512

    func put(_ fd: consuming OwnedFD, _ name: ThreadName) {
        ended.removeAll { $0 == name.process }
        guard sights[name] != nil || sights.count < Self.maximumCount else { return }
        sights[name] = ThreadSight(number: name.thread, fd: fd)
    }

    func noteEnd(of process: Int32) {
        sights = sights.filter { $0.key.process != process }
        ended.removeAll { $0 == process }
        ended.append(process)
        if ended.count > 16 { ended.removeFirst() }
    }

    /// Whether a thread of a dying worker runs no more; nil: that cannot be told yet.
    func isOver(_ name: ThreadName) -> Bool? {
        if ended.contains(name.process) { return true }
        guard let sight = sights[name] else { return nil }
        return sight.state?.isOver ?? true
    }
}

/// How a wait for the threads of a dying process has ended.
enum ThreadWait: Equatable {
    /// None of them runs any more.
    case stopped
    /// This one still does.
    case running(Int32)
    /// Nobody has shown it.
    case unknown
}

extension SupervisorLink {
    /// Waits until threads of a dying process run no more: until each is gone or on its way out. They may go on for
    /// milliseconds on another CPU after the sentinel has fallen, and only then is what they leave behind final.
    ///
    /// - Parameter milliseconds: how long at most.
    func waitForThreads(_ threads: [Int32], of process: Int32, milliseconds: Int) -> ThreadWait {
        let end = monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        for thread in threads {
            let name = ThreadName(process: process, thread: thread)
            var looks = 0
            while true {
                let isOver =
                    isShownThreads
                    ? self.threads.isOver(name) : ThreadState(process: process, thread: thread)?.isOver ?? true
                if isOver == true { break }
                if monotonicNanoseconds() > end { return isOver == nil ? .unknown : .running(thread) }
                guard isOver == nil else {
                    looks += 1
                    // It may need this very CPU to end on.
                    if looks < 10 {
                        sched_yield()
                    } else {
                        pause(nanoseconds: looks < 10_000 ? 20_000 : 1_000_000)
                    }
                    continue
                }
                // The supervisor has not shown it yet; or it is gone, and the next one will.
                guard !isClosed else { return .unknown }
                _ = waitForInput(number, milliseconds: 10)
                receive()
            }
        }
        return .stopped
    }
}
