internal import Glibc

/// CLOCK_MONOTONIC, in nanoseconds.
public func monotonicNanoseconds() -> UInt64 {
    var now = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
}

/// CPU time that all threads of a process have used, in nanoseconds; nil when there is no such process.
public func processCPUNanoseconds(_ process: Int32) -> UInt64? {
    var clock = clockid_t()
    var now = timespec()
    guard process > 0, unsafe clock_getcpuclockid(process, &clock) == 0, unsafe clock_gettime(clock, &now) == 0 else {
        return nil
    }
    return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
}

/// Lets the calling thread sleep, or less when a signal comes: between attempts at something that has no event to wait
/// for.
public func pause(milliseconds: Int32) { pause(nanoseconds: Int(milliseconds) * 1_000_000) }

/// The same for less than a millisecond; the kernel adds the thread's timer slack, 50 µs unless told otherwise.
public func pause(nanoseconds: Int) {
    var time = timespec(tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
    _ = unsafe nanosleep(&time, nil)
}
