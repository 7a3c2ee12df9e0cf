internal import BlockTarget
internal import Glibc
public import Logging
public import Platform
internal import Telemetry
internal import VhostUser

/// A worker that runs on its own: one disk, one front-end at a time, until SIGTERM.
///
/// Threads: this one, which owns sockets, session and signals; and the loops, which own the queues.
public struct Worker: ~Copyable {
    private let device: ServedDevice
    private let loops: [LoopThread]
    private let log: Logger
    /// Those that ask us to end. They are never read: whoever waits next sees them, too.
    private let signals: OwnedFD
    /// Those that ask us to look at the image.
    private let hangups: OwnedFD
    /// Rung when the front-end has taken memory away that it shared: see `SharedMemoryGuard`.
    private let memoryLoss: EventFD
    /// Tells that the image may have another size; nil where nothing tells.
    private let watch: FileWatch?
    private let meeting: Meeting
    private let sandbox: Sandbox
    /// Of a share: its root is the directory, in which the socket's path leads elsewhere.
    private let early: EarlyListener?
    private let isShare: Bool

    /// Opens the storage and starts the loops; nobody can connect yet.
    ///
    /// - Throws: what failed, and what to do.
    public init(_ configuration: WorkerConfiguration, log: Logger) throws(SystemError) {
        ignoreBrokenPipes()
        // Before any thread starts, so that all of them leave these signals to this one.
        let signals = try taking("signals") { () throws(Errno) in
            try makeSignalDescriptor(for: [SIGTERM, SIGINT])
        }
        let hangups = try taking("signals") { () throws(Errno) in try makeSignalDescriptor(for: [SIGHUP]) }
        let memoryLoss = try taking("an eventfd") { () throws(Errno) in try EventFD() }
        _ = try taking("SIGBUS") { () throws(Errno) in try SharedMemoryGuard.install(event: memoryLoss) }
        // It has no record, but says which system call it was that it may not make.
        _ = try taking("fatal signals") { () throws(Errno) in try noteFatalSignals() }
        let statistics = try taking("memory for statistics") { () throws(Errno) in try configuration.makeStatistics() }
        let entrance = try Entrance(configuration, log)
        device = try configuration.makeDevice(
            log: log, signals: signals.number, statistics: statistics, directory: entrance.directory)
        early = entrance.listener
        isShare = entrance.directory != nil
        watch = Self.watch(device, log)
        self.memoryLoss = memoryLoss
        self.log = log
        self.signals = signals
        self.hangups = hangups
        loops = device.loops
        meeting = configuration.meeting
        sandbox = configuration.sandbox
        log.info("serving \(configuration.storage.name)", metadata: device.metadata)
    }

    private static func watch(_ device: ServedDevice, _ log: Logger) -> FileWatch? {
        do throws(Errno) {
            return try device.watch()
        } catch {
            log.warning("the image is not watched, its growth is seen on SIGHUP only: \(error)")
            return nil
        }
    }

    /// Serves until SIGTERM or SIGINT; requests that were taken are finished first.
    ///
    /// - Throws: when the socket cannot be had.
    public consuming func run() throws(SystemError) {
        let outcome: SystemError?
        do throws(SystemError) {
            try serve()
            outcome = nil
        } catch {
            outcome = error
        }
        var stuck = 0
        for loop in loops where !loop.stop() { stuck += 1 }
        if let outcome { throw outcome }
        if stuck > 0 {
            throw SystemError(
                cannot: "end cleanly:", "\(stuck) of \(loops.count) loops", nil,
                advice: "They do not answer; the front-end may have given a descriptor that blocks")
        }
        log.info("ended")
    }

    private borrowing func serve() throws(SystemError) {
        switch meeting {
        case .path(let path, _) where early != nil:
            try confine()
            log.info("listening at \(path)")
            if let early { try serve(early.listener) }
        case .path(let path, let access):
            let listener: UnixListener
            do throws(Errno) {
                listener = try UnixListener(at: path, access: access)
            } catch {
                throw SystemError(cannot: "listen at", path, error, advice: Self.advice(error))
            }
            try confine()
            log.info("listening at \(path)")
            try serve(listener)
            unsafe unlink(path)
        case .descriptor(let number):
            guard fcntl(number, F_GETFD) != -1 else {
                throw SystemError(cannot: "use", "file descriptor \(number)", .current)
            }
            let fd = OwnedFD(owning: number)
            try confine()
            if UnixListener.isListening(number) {
                try serve(UnixListener(owning: fd))
            } else {
                serve(UnixStream(owning: fd))
            }
        }
    }

    /// Gives up what is not needed to serve.
    private borrowing func confine() throws(SystemError) {
        guard sandbox != .off else { return }
        do throws(Errno) {
            try limitSystemCalls(to: isShare ? .shareAlone : .alone)
        } catch {
            let refusal = SystemError(
                cannot: "set up", "a filter of system calls", error, advice: "--sandbox=off serves without")
            guard sandbox == .auto else { throw refusal }
            log.warning("\(refusal); this worker could do all that its user may")
        }
    }

    private static func advice(_ error: Errno) -> String {
        switch error {
        case Errno(rawValue: EADDRINUSE): "Another process listens there: end it, or choose another path"
        case Errno(rawValue: ENAMETOOLONG): "A socket's path has at most 106 bytes"
        case .noEntry: "Its directory does not exist"
        case Errno(rawValue: ENOTSOCK): "Something that is no socket is there: remove it, or choose another path"
        default: ""
        }
    }

    /// Serves one front-end after the other.
    private borrowing func serve(_ listener: borrowing UnixListener) throws(SystemError) {
        while true {
            switch waitForInput(of: listener.fd.number) {
            case .input: break
            case .end: return
            // Of a connection that has ended.
            case .memoryLoss: continue
            }
            do throws(Errno) {
                serve(try listener.accept())
            } catch {
                log.error("cannot accept a connection: \(error)")
                // Out of descriptors, most likely: the connection stays in the queue, so do not ask again at once.
                usleep(100_000)
            }
        }
    }

    /// Serves one front-end until it goes or a signal asks us to end.
    private borrowing func serve(_ stream: consuming UnixStream) {
        log.info("a front-end has connected")
        let reason = talk(stream)
        let report = device.takeReport()
        log.info("the connection has ended: \(reason)", metadata: report.metadata)
    }

    /// Carries out a front-end's messages. When this returns, the device has been reset.
    ///
    /// - Returns: why the connection has ended.
    private borrowing func talk(_ stream: consuming UnixStream) -> String {
        do {
            var connection = try Connection(stream: stream, device: device)
            memoryLoss.clear()
            while true {
                switch waitForInput(of: connection.number) {
                case .input: break
                case .end: return "this worker was asked to end"
                case .memoryLoss: return "the front-end has taken away memory that it shares"
                }
                switch try connection.serveOne() {
                case .nothing: break
                case .message(let kind): log.debug("\(kind)")
                case .refused(let refusal): log.warning("a message was refused: \(refusal)")
                }
            }
        } catch {
            return "\(error)"
        }
    }

    /// What a wait for a front-end has come to.
    private enum Event {
        case input
        /// A signal asks us to end.
        case end
        /// The front-end has shortened a file of memory that it shares.
        case memoryLoss
    }

    /// Waits until a descriptor of a front-end has input. Everything that is not the front-end's is dealt with
    /// meanwhile.
    private borrowing func waitForInput(of number: Int32) -> Event {
        let watched = watchNumber
        while true {
            let channel = device.channelNumber
            let ready = waitForAny(
                [signals.number, hangups.number, memoryLoss.fd.number, number, watched, channel],
                waiting: !device.mustAnnounce)
            if ready.contains(signals.number) { return .end }
            if ready.contains(memoryLoss.fd.number), memoryLoss.clear() { return .memoryLoss }
            if ready.contains(hangups.number), nextSignal(of: hangups) != nil { device.lookAtStorage(announcing: true) }
            if watched >= 0, ready.contains(watched) {
                watch?.clear()
                device.lookAtStorage(announcing: false)
            }
            if channel >= 0, ready.contains(channel) { device.receiveFromChannel() }
            if ready.contains(number) { return .input }
            if device.mustAnnounce { device.announce() }
        }
    }

    private var watchNumber: Int32 {
        switch watch {
        case .some(let watch): watch.number
        case .none: -1
        }
    }
}

extension Storage {
    /// As the log names it.
    var name: String {
        switch self {
        case .image(let path, let cache): "\(path) (\(cache.rawValue))"
        case .memory: "memory"
        case .null: "nothing"
        case .directory(let path, _): path
        }
    }
}

extension QueueReport {
    /// As the log shows it: what is 0 is left out, except the requests.
    var metadata: Logger.Metadata {
        var pairs: Logger.Metadata = ["requests": "\(counts.operations)"]
        let others: [(String, UInt64)] = [
            ("failed", counts.errors), ("malformed", counts.malformed), ("stale", counts.staleCompletions),
            ("no-space", faults.noSpace), ("retries", faults.retries), ("short", faults.shortTransfers),
            ("unexpected-ends", faults.unexpectedEnds), ("errors", faults.errors),
        ]
        for (name, value) in others where value > 0 { pairs[name] = "\(value)" }
        return pairs
    }
}

/// Says what a system call was for.
func taking<Value: ~Copyable>(
    _ subject: String, _ take: () throws(Errno) -> Value
) throws(SystemError) -> Value {
    do throws(Errno) {
        return try take()
    } catch {
        throw SystemError(cannot: "take up", subject, error)
    }
}
