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
        let result = unsafe clinux_spawn(&pid, program, words, output.number, nil, 0, 0)
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

/// A process that lives on without whoever started it: letting go of it ends nothing.
public struct DetachedProcess: ~Copyable, Sendable {
    public let pid: Int32
    /// Readable when the process has ended.
    public let pidfd: OwnedFD

    /// Starts a program in a session of its own. Standard input is empty.
    ///
    /// - Parameters:
    ///   - path: of the program; `/proc/self/fd/N` starts an open one.
    ///   - name: as `ps` shows it.
    ///   - output: where its standard output and error go.
    ///   - inherited: descriptors that stay open in it, under the same numbers. It gets no others, except from
    ///     libraries that open some without close-on-exec at this very moment.
    ///   - room: the pidfd of the `ProcessRoom` in which it is started; nil: in none.
    ///   - roomHasUsers: the room has a user namespace.
    /// - Throws: what could not be done, and why.
    public init(
        path: String, name: String, arguments: [String], output: borrowing OwnedFD, inheriting inherited: [Int32],
        room: Int32? = nil, roomHasUsers: Bool = true
    ) throws(SystemError) {
        _ = clinux_close_all_on_exec()
        var pid: Int32 = -1
        var words = unsafe ([name] + arguments).map { unsafe strdup($0) }
        unsafe words.append(nil)
        let count = UInt32(inherited.count)
        let result =
            if let room {
                unsafe clinux_spawn_in_room(
                    &pid, room, roomHasUsers ? 1 : 0, path, words, output.number, inherited, count)
            } else {
                unsafe clinux_spawn(&pid, path, words, output.number, inherited, count, 1)
            }
        for index in unsafe words.indices { unsafe free(words[index]) }
        guard result == 0 else { throw SystemError(cannot: "start", name, Errno(rawValue: result)) }
        let number = clinux_pidfd_open(pid)
        guard number >= 0 else {
            let error = Errno.current
            kill(pid, SIGKILL)
            _ = reap(pid)
            throw SystemError(cannot: "watch", name, error)
        }
        self.pid = pid
        pidfd = OwnedFD(owning: number)
    }

    /// Takes over the watch of a process that another started.
    ///
    /// - Parameter pidfd: names it; a number alone may have passed on to another process.
    public init(adopting pid: Int32, pidfd: consuming OwnedFD) {
        self.pid = pid
        self.pidfd = pidfd
    }

    /// Sends a signal; a process that has ended gets none.
    public borrowing func send(signal: Int32) {
        _ = clinux_pidfd_signal(pidfd.number, signal)
    }

    /// A duplicate of one of its descriptors.
    ///
    /// - Throws: pidfd_getfd's error.
    public borrowing func duplicate(descriptor number: Int32) throws(Errno) -> OwnedFD {
        OwnedFD(owning: try retryingInterrupts { clinux_pidfd_getfd(pidfd.number, number) })
    }

    public var hasEnded: Bool { waitForInput(pidfd.number, milliseconds: 0) }

    /// How it ended, once its `pidfd` is readable; nil when it is the child of another process, which is told instead.
    /// It stays a zombie until `letGo`.
    public borrowing func readEnding() -> ChildProcess.Ending? {
        var info = unsafe siginfo_t()
        while unsafe waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 {
            if Errno.current != .interrupted { return nil }
        }
        guard unsafe info.si_signo != 0 else { return nil }
        let status = unsafe info._sifields._sigchld.si_status
        return unsafe info.si_code == Int32(CLD_EXITED) ? .exited(code: status) : .killed(signal: status)
    }

    /// Nothing is left of it then. Not while its last thread may still be on its way out: the kernel would spin until
    /// that one has taken its entries out of /proc.
    public static func letGo(of pid: Int32) {
        var status: Int32 = 0
        _ = unsafe waitpid(pid, &status, WNOHANG)
    }
}

/// Runs another program in this process, which keeps its number, its children and its standard descriptors only.
///
/// - Returns: execv's error; not at all when it succeeds.
public func replaceProcess(path: String, arguments: [String]) -> Errno {
    _ = clinux_close_all_on_exec()
    var words = unsafe arguments.map { unsafe strdup($0) }
    unsafe words.append(nil)
    unsafe execv(path, words)
    return .current
}

/// Waits for a child that has ended or was just killed.
private func reap(_ pid: Int32) -> ChildProcess.Ending {
    var status: Int32 = 0
    while unsafe waitpid(pid, &status, 0) == -1, Errno.current == .interrupted {}
    return ending(status)
}

private func ending(_ status: Int32) -> ChildProcess.Ending {
    let signal = status & 0x7f
    return signal == 0 ? .exited(code: (status >> 8) & 0xff) : .killed(signal: signal)
}
