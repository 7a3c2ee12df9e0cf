internal import Custody
internal import Glibc
internal import Platform

/// A descriptor that several places hold.
final class SharedFD: Sendable {
    let fd: OwnedFD
    var number: Int32 { fd.number }

    init(_ fd: consuming OwnedFD) { self.fd = fd }
}

/// A worker as its supervisor sees it: a process, a channel, and what the channel has no room for yet.
final class WorkerLink {
    let process: DetachedProcess
    let channel: CustodyChannel
    /// The numbers under which the worker has its kernel rings.
    let ringNumbers: [Int32]
    /// Its threads, as they were when they were looked at last.
    private(set) var threads: [ThreadSight] = []
    private var outbox: [(message: CustodyMessage, cargo: Cargo)] = []
    private var blockedSince: UInt64?
    private var isDeaf = false

    /// Messages that wait for a worker to read; one that lets more pile up is hung.
    static let outboxLimit = 4096
    /// How long a worker may leave its channel unread, in nanoseconds.
    static let patience: UInt64 = 10_000_000_000

    /// - Parameter channel: our end; it is made non-blocking.
    init(process: consuming DetachedProcess, channel: consuming CustodyChannel, ringNumbers: [Int32]) {
        self.process = process
        self.channel = channel
        self.ringNumbers = ringNumbers
        _ = fcntl(self.channel.fd.number, F_SETFL, O_NONBLOCK)
    }

    /// Looks at its threads anew.
    func lookAtThreads() { threads = ThreadSight.all(of: process.pid) }

    /// Messages wait: `flush` is to be called again soon.
    var isBlocked: Bool { !outbox.isEmpty }

    /// Sends a message, now or as soon as there is room.
    func send(_ message: CustodyMessage, _ descriptor: SharedFD?) {
        send(message, .shared(descriptor))
    }

    /// What a message may carry.
    enum Cargo {
        case shared(SharedFD?)
        case thread(ThreadSight)

        var number: Int32? {
            switch self {
            case .shared(let file): file?.number
            case .thread(let sight): sight.fd.number
            }
        }
    }

    func send(_ message: CustodyMessage, _ cargo: Cargo) {
        guard !isDeaf else { return }
        outbox.append((message, cargo))
        if outbox.count == 1 { flush() }
    }

    /// Sends what waits, as far as there is room. A worker that does not read is killed.
    func flush() {
        var sent = 0
        defer { outbox.removeFirst(sent) }
        while sent < outbox.count {
            do throws(Errno) {
                try channel.send(outbox[sent].message, with: outbox[sent].cargo.number)
                sent += 1
                blockedSince = nil
            } catch {
                if error == .wouldBlock {
                    let now = monotonicNanoseconds()
                    let since = blockedSince ?? now
                    blockedSince = since
                    if now - since < Self.patience, outbox.count < Self.outboxLimit { return }
                }
                // Gone, or as good as gone: its end comes through the pidfd.
                process.send(signal: SIGKILL)
                isDeaf = true
                sent = outbox.count
            }
        }
    }
}
