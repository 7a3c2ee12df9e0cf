internal import BlockTarget
internal import Glibc
public import Logging
public import Platform
internal import VhostUser

/// A worker that runs on its own: one disk, one front-end at a time, until SIGTERM.
///
/// Threads: this one, which owns sockets, session and signals; and the loops, which own the queues.
public struct Worker: ~Copyable {
    private let device: DiskDevice
    private let loops: [LoopThread]
    private let log: Logger
    private let signals: OwnedFD
    private let meeting: Meeting

    /// Opens the storage and starts the loops; nobody can connect yet.
    ///
    /// - Throws: what failed, and what to do.
    public init(_ configuration: WorkerConfiguration, log: Logger) throws(SystemError) {
        ignoreBrokenPipes()
        let signals: OwnedFD
        do throws(Errno) {
            // Before any thread starts, so that all of them leave these signals to this one.
            signals = try makeSignalDescriptor(for: [SIGTERM, SIGINT])
        } catch {
            throw SystemError(cannot: "take up", "signals", error)
        }
        let (disk, loops, tenure) = try configuration.startLoops(log: log)
        self.log = log
        self.signals = signals
        self.loops = loops
        meeting = configuration.meeting
        device = DiskDevice(
            disk: disk, tenure: tenure, loops: loops, drainMilliseconds: WorkerConfiguration.drainMilliseconds,
            pinsMemory: configuration.pinsGuestMemory, log: log)
        log.info(
            "serving \(configuration.storage.name)",
            metadata: [
                "bytes": "\(disk.sectors * 512)", "block": "\(disk.logicalBlockSize)", "queues": "\(disk.queueCount)",
                "threads": "\(loops.count)", "read-only": "\(disk.isReadOnly)",
            ])
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
        case .path(let path, let access):
            let listener: UnixListener
            do throws(Errno) {
                listener = try UnixListener(at: path, access: access)
            } catch {
                throw SystemError(cannot: "listen at", path, error, advice: Self.advice(error))
            }
            log.info("listening at \(path)")
            try serve(listener)
            unsafe unlink(path)
        case .descriptor(let number):
            guard fcntl(number, F_GETFD) != -1 else {
                throw SystemError(cannot: "use", "file descriptor \(number)", .current)
            }
            let fd = OwnedFD(owning: number)
            if UnixListener.isListening(number) {
                try serve(UnixListener(owning: fd))
            } else {
                serve(UnixStream(owning: fd))
            }
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
        while waitForInput(of: listener.fd.number) {
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
            while waitForInput(of: connection.number) {
                switch try connection.serveOne() {
                case .nothing: break
                case .message(let kind): log.debug("\(kind)")
                case .refused(let refusal): log.warning("a message was refused: \(refusal)")
                }
            }
            return "this worker was asked to end"
        } catch {
            return "\(error)"
        }
    }

    /// Waits until a descriptor has input.
    ///
    /// - Returns: false when a signal asked us to end first.
    private borrowing func waitForInput(of number: Int32) -> Bool {
        waitForEither(number, signals.number) == number
    }
}

extension Storage {
    /// As the log names it.
    var name: String {
        switch self {
        case .image(let path, let cache): "\(path) (\(cache.rawValue))"
        case .memory: "memory"
        case .null: "nothing"
        }
    }
}

extension QueueReport {
    /// As the log shows it: what is 0 is left out, except the requests.
    var metadata: Logger.Metadata {
        var pairs: Logger.Metadata = ["requests": "\(counters.requests)"]
        let others: [(String, UInt64)] = [
            ("failed", counters.failed), ("malformed", counters.malformed), ("stale", counters.staleCompletions),
            ("no-space", faults.noSpace), ("retries", faults.retries), ("short", faults.shortTransfers),
            ("unexpected-ends", faults.unexpectedEnds), ("errors", faults.errors),
        ]
        for (name, value) in others where value > 0 { pairs[name] = "\(value)" }
        return pairs
    }
}
