internal import Custody
internal import Glibc
internal import Logging
internal import Platform

/// What the supervisor has told a worker to do.
enum SupervisorOrder: Equatable {
    /// Everything has been given; the text is the configuration.
    case prepare(String)
    case freeze
    case thaw
    case quit
    /// A front-end's connection has been given.
    case connection
    /// The disk has another size.
    case resize(ResizeOrder)
}

/// A worker's end of the channel: keeps what is given, and passes orders on.
///
/// When the supervisor is gone the worker goes on: it can neither keep anything new nor be told anything, until another
/// supervisor has taken the channel over.
final class SupervisorLink {
    let descriptors = HeldDescriptors()
    let threads = KnownThreads()
    /// This process, as the supervisor numbers it.
    private(set) var ownProcess = getpid()
    /// The supervisor shows threads; earlier versions did not, and their workers saw for themselves.
    private(set) var isShownThreads = false
    private let channel: CustodyChannel
    private let log: Logger
    private var orders: [SupervisorOrder] = []
    /// The value of the last `keep`, and whether it is confirmed. An earlier one that comes again is nobody's.
    private var lastKeep: UInt64 = 0
    private var isConfirmed = false
    private(set) var isClosed = false

    /// How long the supervisor may take to confirm what it keeps, in milliseconds. It may be restarting.
    private static let patience: UInt64 = 10_000
    /// The same for what can be tried again, while this thread has other things to do.
    private static let shortPatience: UInt64 = 1_000

    init(channel: consuming CustodyChannel, log: Logger) {
        self.channel = channel
        self.log = log
    }

    /// Readable when the supervisor has said something.
    var number: Int32 { channel.fd.number }

    /// Takes everything that has come.
    func receive() {
        while !isClosed {
            do throws(Errno) {
                switch try channel.receive() {
                case .nothing: return
                case .closed: isClosed = true
                case .unreadable(let error): log.error("the supervisor's message is ignored: \(error)")
                case .message(let message, var fds): take(message, fds.takeFirst())
                }
            } catch {
                log.error("cannot hear the supervisor: \(error)")
                isClosed = true
            }
        }
    }

    private func take(_ message: CustodyMessage, _ fd: consuming OwnedFD?) {
        switch message.kind {
        case .give:
            guard let fd = fd.take() else { return log.error("\(message.key) was given without a descriptor") }
            if message.key.role == .thread { return threads.put(fd, ThreadName(value: message.value)) }
            guard descriptors.put(fd, under: message.key) else { return log.error("no room for \(message.key)") }
            if message.key.role == .connection { orders.append(.connection) }
        case .drop:
            if message.key.role == .thread {
                threads.noteEnd(of: ThreadName(value: message.value).process)
            } else {
                descriptors.remove(message.key)
            }
        case .kept: if message.value == lastKeep { isConfirmed = true }
        case .prepare:
            if let process = Int32(exactly: message.value), process > 0 {
                ownProcess = process
                isShownThreads = true
            }
            orders.append(.prepare(message.text))
        case .freeze: orders.append(.freeze)
        case .thaw: orders.append(.thaw)
        case .quit: orders.append(.quit)
        case .resize: orders.append(.resize(message.resizeOrder))
        // Of another version.
        default: break
        }
    }

    /// The oldest order that has not been taken.
    func nextOrder() -> SupervisorOrder? { orders.isEmpty ? nil : orders.removeFirst() }

    /// Whether this worker has been told to end, and has not taken the order.
    var isToldToQuit: Bool { orders.contains(.quit) }

    /// Tells the supervisor something; lost when it is gone.
    func tell(_ message: CustodyMessage) {
        do throws(Errno) {
            try channel.send(message)
        } catch {
            if error != .brokenPipe { log.error("cannot tell the supervisor: \(error)") }
        }
    }

    /// Gives a descriptor into custody and waits until it is kept. A worker that dies after this has lost nothing.
    ///
    /// - Throws: when nobody keeps it.
    func keep(_ fd: borrowing OwnedFD, under key: CustodyKey) throws(SystemError) {
        guard try offer(fd, under: key, milliseconds: Self.patience) else {
            throw SystemError(cannot: "give into custody", "\(key)", nil, advice: "The supervisor does not answer")
        }
    }

    /// Gives a descriptor into custody if the supervisor is there.
    ///
    /// - Returns: false when it has not confirmed in time: it is to be tried again, from the start. True when it has,
    ///   and when there is no custody any more: without a supervisor to come there is no successor either, and the
    ///   device is served as long as this process lives.
    /// - Throws: when it cannot be given.
    func keepIfAnswered(_ fd: borrowing OwnedFD, under key: CustodyKey) throws(SystemError) -> Bool {
        if isClosed {
            do throws(Errno) {
                _ = descriptors.put(try fd.duplicate(), under: key)
            } catch {
                throw SystemError(cannot: "keep", "\(key)", error)
            }
            return true
        }
        let isKept = try offer(fd, under: key, milliseconds: Self.shortPatience)
        return isKept || isClosed
    }

    /// - Returns: whether it was confirmed within the time.
    private func offer(
        _ fd: borrowing OwnedFD, under key: CustodyKey, milliseconds: UInt64
    ) throws(SystemError) -> Bool {
        lastKeep += 1
        isConfirmed = false
        do throws(Errno) {
            guard descriptors.put(try fd.duplicate(), under: key) else { throw Errno(rawValue: EMFILE) }
            try channel.send(CustodyMessage(.keep, key, value: lastKeep), with: fd.number)
        } catch {
            // Full of what it has not heard yet, or gone.
            if [.wouldBlock, .brokenPipe, Errno(rawValue: ECONNRESET)].contains(error) { return false }
            throw SystemError(cannot: "give into custody", "\(key)", error)
        }
        let end = monotonicNanoseconds() + milliseconds * 1_000_000
        while !isConfirmed {
            let now = monotonicNanoseconds()
            guard now < end, !isClosed else { return false }
            _ = waitForInput(channel.fd.number, milliseconds: Int32(clamping: (end - now) / 1_000_000 + 1))
            receive()
        }
        return true
    }

    /// Lets the supervisor close what is needed no more.
    func release(_ key: CustodyKey) {
        descriptors.remove(key)
        tell(CustodyMessage(.release, key))
    }
}
