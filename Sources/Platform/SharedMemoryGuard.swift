internal import CLinux

/// What happens when a peer takes the file away under memory that it shares with us: see memory_guard.h. Mappings of
/// such files are made `guarded`.
public enum SharedMemoryGuard {
    /// Takes up SIGBUS for the rest of the process's life.
    ///
    /// - Parameter event: rung for each guarded mapping that was lost; it stays open for as long as the process lives.
    /// - Throws: sigaction's error.
    public static func install(event: borrowing EventFD) throws(Errno) {
        try retryingInterrupts { clinux_guard_install(event.fd.number) }
    }

    /// Rings the event: the kernel has found guarded memory gone (EFAULT).
    public static func report() {
        clinux_guard_report()
    }
}
