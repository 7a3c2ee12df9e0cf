public import CLinux
internal import Glibc

/// A thread of this process, named as `ps -L` shows it.
public struct JoinableThread: ~Copyable, @unchecked Sendable {
    private let handle: pthread_t

    /// Starts a thread.
    ///
    /// - Parameter name: at most 15 bytes; the kernel keeps no more.
    /// - Throws: pthread_create's error.
    public init(name: String, _ body: @escaping @Sendable () -> Void) throws(Errno) {
        let start = unsafe Unmanaged.passRetained(ThreadStart(name: name, body: body))
        var handle = pthread_t()
        let result = unsafe pthread_create(&handle, nil, threadMain, start.toOpaque())
        guard result == 0 else {
            unsafe start.release()
            throw Errno(rawValue: result)
        }
        self.handle = handle
    }

    /// Lets it run on its own, until it returns or the process ends.
    public consuming func detach() {
        pthread_detach(handle)
    }

    /// Waits until the thread has returned.
    public consuming func join() {
        pthread_join(handle, nil)
    }
}

private final class ThreadStart: Sendable {
    let name: String
    let body: @Sendable () -> Void

    init(name: String, body: @escaping @Sendable () -> Void) {
        self.name = name
        self.body = body
    }
}

private func threadMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    let start = unsafe Unmanaged<ThreadStart>.fromOpaque(argument!).takeRetainedValue()
    nameCurrentThread(start.name)
    let stack = unsafe clinux_fatal_enter_thread()
    start.body()
    unsafe clinux_fatal_leave_thread(stack)
    return nil
}

/// Asks the scheduler to let the calling thread, and all that it starts from now on, run soon and for 0.1 ms at a time,
/// where others wait up to several milliseconds for their turn. Their share of the CPU stays what it is. Linux before
/// 6.12 cannot: things take longer there when all CPUs are busy.
public func takeShortTurns() { _ = clinux_set_slice(100_000) }

/// Makes this program's code and data, and the calling thread's stack, present in memory, for what is to be done in a
/// hurry later: each page that is not costs some microseconds then.
public func populateProgram() { clinux_populate_program() }

/// Lets this process have the CPU only when nobody else wants it, or nearly so. Only for one that leads a process group
/// and is alone in it.
public func deferProcess() { _ = setpriority(Int32(PRIO_PGRP.rawValue), 0, 19) }

/// Lets a thread have the CPU only when nobody else wants it, or nearly so. One that is gone, or belongs to somebody
/// else, is left alone.
///
/// - Parameter number: as the PID namespace of the caller numbers it.
public func deferThread(_ number: Int32) {
    _ = setpriority(Int32(PRIO_PROCESS.rawValue), UInt32(bitPattern: number), 19)
}

/// Names the calling thread as `ps -L` shows it; the first thread's name is that of the process. Longer ones are cut.
public func nameCurrentThread(_ name: String) {
    unsafe pthread_setname_np(pthread_self(), String(name.prefix(15)))
}

/// The kernel's number of the calling thread.
public func currentThreadNumber() -> Int32 { clinux_gettid() }

/// Binds the calling thread to one CPU.
///
/// - Throws: `invalidArgument` when this process may not run on that CPU.
public func pinCurrentThread(toCPU cpu: Int) throws(Errno) {
    guard let cpu = UInt32(exactly: cpu) else { throw .invalidArgument }
    try retryingInterrupts { clinux_pin_thread(cpu) }
}

/// The number of CPUs that are online, at least 1.
public func onlineCPUCount() -> Int {
    max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
}

/// Tells the CPU that the caller spins.
@inlinable
public func spinHint() {
    clinux_relax()
}
