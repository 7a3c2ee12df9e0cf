internal import CLinux
internal import Glibc

/// A process that this one started. It never outlives its owner: letting go of it kills and reaps it.
public struct ChildProcess: ~Copyable, Sendable {
    /// How a process ended.
    public enum Ending: Hashable, Sendable {
        /// It called exit with this code.
        case exited(code: Int32)
        /// This signal killed it.
        case killed(signal: Int32)
    }

    public let pid: Int32
    /// How it ended; nil while it runs, or before `wait` has seen the end.
    public private(set) var ending: Ending?
    private let pidfd: OwnedFD

    /// Starts `program`, found along PATH, on the CPUs that the calling thread may use. Standard input is empty.
    ///
    /// - Parameter output: where its standard output and error go.
    /// - Throws: posix_spawn's or pidfd_open's error.
    public init(_ program: String, _ arguments: [String], output: borrowing OwnedFD) throws(SystemError) {
        var pid: Int32 = -1
        var words = unsafe ([program] + arguments).map { unsafe strdup($0) }
        unsafe words.append(nil)
        let result = unsafe clinux_spawn(&pid, program, words, output.number)
        for index in unsafe words.indices { unsafe free(words[index]) }
        guard result == 0 else {
            throw SystemError(cannot: "start", program, Errno(rawValue: result), advice: "Is it installed?")
        }
        let number = clinux_pidfd_open(pid)
        guard number >= 0 else {
            let error = Errno.current
            kill(pid, SIGKILL)
            _ = waitpid(pid, nil, 0)
            throw SystemError(cannot: "watch", program, error)
        }
        self.pid = pid
        pidfd = OwnedFD(owning: number)
    }

    /// Sends a signal; a process that has ended gets none.
    public borrowing func send(signal: Int32) {
        if ending == nil { kill(pid, signal) }
    }

    /// Waits for the end.
    ///
    /// - Parameter milliseconds: nil waits for ever.
    /// - Returns: how it ended, or nil when the time was over first.
    @discardableResult
    public mutating func wait(milliseconds: Int32? = nil) -> Ending? {
        if let ending { return ending }
        guard waitForInput(pidfd.number, milliseconds: milliseconds) else { return nil }
        ending = reap(pid)
        return ending
    }

    deinit {
        guard ending == nil else { return }
        kill(pid, SIGKILL)
        _ = reap(pid)
    }
}

/// Waits for a child that has ended or was just killed.
private func reap(_ pid: Int32) -> ChildProcess.Ending {
    var status: Int32 = 0
    while unsafe waitpid(pid, &status, 0) == -1, Errno.current == .interrupted {}
    let signal = status & 0x7f
    return signal == 0 ? .exited(code: (status >> 8) & 0xff) : .killed(signal: signal)
}
