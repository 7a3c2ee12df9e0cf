internal import CTrace
internal import Glibc
internal import Platform

/// A thread of another process that can be stopped at a store or a system call. Every call comes from one thread.
struct TracedThread: ~Copyable {
    /// Why it has stopped.
    enum Stop: Equatable {
        case call, trap, interrupted, ended, timeout
    }

    /// A system call that it has stopped at.
    struct Call {
        var isAtBeginning: Bool
        var number: UInt64
        /// The second argument, at the beginning.
        var second: UInt64
        /// At the end.
        var result: Int64
    }

    let number: Int32

    /// Finds a thread by its name, takes it and stops it.
    ///
    /// - Throws: when there is no such thread, or this process may not trace it.
    init(named name: String, ofProcess pid: Int32, deadline: UInt64) throws(SystemError) {
        // A thread gives itself its name when it first runs, which may be a while after its process listens.
        var found: Int32?
        while found == nil, monotonicNanoseconds() < deadline {
            let names = directoryNames("/proc/\(pid)/task")
            found = names.first { readSmallFile("/proc/\(pid)/task/\($0)/comm") == name }.flatMap { Int32($0) }
            if found == nil { usleep(1000) }
        }
        guard let thread = found else {
            throw SystemError(cannot: "find", "thread \(name) of process \(pid)", nil)
        }
        try self.init(thread, deadline: deadline)
    }

    /// Takes a thread and stops it.
    ///
    /// - Throws: when this process may not trace it.
    init(_ thread: Int32, deadline: UInt64) throws(SystemError) {
        guard ctrace_seize(thread) == 0 else {
            throw SystemError(
                cannot: "trace", "thread \(thread)", .current, advice: "Run as root, or with the capability SYS_PTRACE")
        }
        guard ctrace_interrupt(thread) == 0, Self.wait(for: thread, deadline) == .interrupted else {
            throw SystemError(cannot: "stop", "thread \(thread)", .current)
        }
        number = thread
    }

    /// Lets it run on for good, with a signal on its way to it or none.
    func letGo(signal: Int32 = 0) { _ = ctrace_continue(number, 0, signal) }

    /// Lets it run on for good, and ends without anybody here to take note.
    consuming func detach() { _ = ctrace_detach(number) }

    /// Lets it run on until it stops again.
    func proceed(toCall: Bool, deadline: UInt64) -> Stop {
        guard ctrace_continue(number, toCall ? 1 : 0, 0) == 0 else { return .ended }
        return Self.wait(for: number, deadline, toCall: toCall)
    }

    /// Waits until it stops; signals that come meanwhile are handed on.
    private static func wait(for number: Int32, _ deadline: UInt64, toCall: Bool = false) -> Stop {
        while monotonicNanoseconds() < deadline {
            var signal: Int32 = 0
            switch unsafe ctrace_look(number, &signal) {
            case CTRACE_CALL: return .call
            case CTRACE_TRAP: return .trap
            case CTRACE_INTERRUPTED: return .interrupted
            case CTRACE_ENDED: return .ended
            case CTRACE_SIGNAL: _ = ctrace_continue(number, toCall ? 1 : 0, signal)
            default: usleep(20)
            }
        }
        return .timeout
    }

    /// Stops it wherever it is.
    func interrupt(deadline: UInt64) {
        if ctrace_interrupt(number) == 0 { _ = Self.wait(for: number, deadline) }
    }

    /// Will stop it after each store to these places of its memory.
    ///
    /// - Throws: `notSupported` where the processor's debug registers are not known here.
    func watch(_ places: [UInt64], length: Int) throws(SystemError) {
        guard unsafe ctrace_watch(number, places, UInt32(places.count), UInt32(length)) == 0 else {
            throw SystemError(
                cannot: "watch", "stores of thread \(number)", .current, advice: "This needs x86-64's debug registers")
        }
    }

    /// The system call that it has stopped at.
    var call: Call? {
        var number: UInt64 = 0
        var second: UInt64 = 0
        var result: Int64 = 0
        let place = unsafe ctrace_call(self.number, &number, &second, &result)
        return place == 0 ? nil : Call(isAtBeginning: place == 1, number: number, second: second, result: result)
    }

    /// To be called after the process has been killed: it is not gone before its tracer has taken note. A thread ends
    /// when the storage has finished what it waits for there: on a slow one that takes long.
    consuming func bury() {
        let deadline = monotonicNanoseconds() + 300_000_000_000
        while monotonicNanoseconds() < deadline, Self.wait(for: number, deadline) != .ended {}
    }
}
