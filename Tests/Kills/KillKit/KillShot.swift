internal import FrontendKit
internal import Glibc
internal import Platform

/// One kill: brings a worker's loop to the moment that is aimed at.
struct KillShot: ~Copyable {
    private let aim: KillAim
    private let view: any QueueView
    private let pid: Int32
    private let deadline: UInt64
    private let thread: TracedThread
    private let stores: WatchedStores

    /// The number of io_uring_enter on every architecture.
    private static let enterCall: UInt64 = 426
    /// How long to wait for the moment, in milliseconds.
    static let milliseconds = 5_000

    /// Stops a worker's loop where it is, and prepares to stop it at the moment.
    ///
    /// - Parameter loop: index of the loop that serves the queue.
    init(_ aim: KillAim, _ view: any QueueView, loop: Int, ofProcess pid: Int32) throws(SystemError) {
        let deadline = monotonicNanoseconds() + UInt64(Self.milliseconds) * 1_000_000
        let thread = try TracedThread(named: "loop-\(loop)", ofProcess: pid, deadline: deadline)
        // The loop stands still: what is to be stored next can be told.
        let stores = aim.needsWatch ? view.stores(for: aim) : WatchedStores(places: [], length: 0)
        if !stores.places.isEmpty { try Self.watch(stores, thread, pid) }
        self.aim = aim
        self.view = view
        self.pid = pid
        self.deadline = deadline
        self.thread = thread
        self.stores = stores
    }

    private static func watch(
        _ stores: WatchedStores, _ thread: borrowing TracedThread, _ pid: Int32
    ) throws(SystemError) {
        guard let memory = WorkerLook.address(ofMemoryFile: "guest memory", inProcess: pid),
            let log = WorkerLook.address(ofMemoryFile: "baton-inflight", inProcess: pid)
        else { throw SystemError(cannot: "find", "the shared memory of process \(pid)", nil) }
        let addresses = stores.places.map { place in
            switch place {
            case .guest(let offset): memory + UInt64(offset)
            case .log(let offset): log + UInt64(offset)
            }
        }
        try thread.watch(addresses, length: stores.length)
    }

    /// Lets the loop run until the moment has come.
    ///
    /// - Returns: false when it did not come in time; the loop is stopped somewhere then.
    func reach() -> Bool {
        if aim == .looked { return true }
        let atCalls = !aim.needsWatch
        var flags = stores.heads.map { view.isInFlight($0) }
        while monotonicNanoseconds() < deadline {
            switch thread.proceed(toCall: atCalls, deadline: deadline) {
            case .call: if isAtCall { return true }
            case .trap:
                if view.isAt(aim, flagsChanged: flags != stores.heads.map { view.isInFlight($0) }) { return true }
            case .interrupted: break
            case .timeout:
                thread.interrupt(deadline: monotonicNanoseconds() + 1_000_000_000)
                return false
            case .ended: return false
            }
            flags = stores.heads.map { view.isInFlight($0) }
        }
        return false
    }

    private var isAtCall: Bool {
        guard let call = thread.call else { return false }
        switch aim {
        case .queued, .recoveryQueued:
            return call.isAtBeginning && call.number == Self.enterCall && call.second > 0
        // The end of a call does not tell its number; only io_uring_enter and eventfd writes end with small numbers,
        // and a write to an eventfd ends with 8.
        default: return !call.isAtBeginning && lastEntered(call)
        }
    }

    /// Whether the call that has just ended put requests into the kernel.
    private func lastEntered(_ call: TracedThread.Call) -> Bool {
        call.result > 0 && readSmallFile("/proc/\(pid)/task/\(thread.number)/syscall")?.hasPrefix("426 ") == true
    }

    /// Looks at the worker, kills it, and lets go of it.
    consuming func kill() -> (running: Int, done: Int) {
        let operations = WorkerLook.operations(ofProcess: pid)
        Glibc.kill(pid, SIGKILL)
        thread.bury()
        return operations
    }
}
