internal import CLinux
internal import Glibc

/// Blocks `signals` in the calling thread, and so in threads started later, and delivers them through a descriptor.
///
/// - Throws: signalfd's error.
public func makeSignalDescriptor(for signals: [Int32]) throws(Errno) -> OwnedFD {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for signal in signals { unsafe sigaddset(&set, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    let flags = Int32(SFD_CLOEXEC | SFD_NONBLOCK)
    return OwnedFD(owning: try retryingInterrupts { unsafe signalfd(-1, &set, flags) })
}

/// Makes a write to a pipe or socket that nobody reads fail with `brokenPipe` instead of killing the process: standard
/// error is such a pipe when whoever collects the log is restarted.
public func ignoreBrokenPipes() {
    _ = signal(SIGPIPE, SIG_IGN)
}

/// The next signal that a signal descriptor has received, or nil when there is none.
public func nextSignal(of descriptor: borrowing OwnedFD) -> Int32? {
    var info = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    return unsafe read(descriptor.number, &info, size) == size ? Int32(info.ssi_signo) : nil
}

/// Makes signals that end this process by its own fault be noted before they do, where `clinux_fatal_note_at` says. To
/// be called after `SharedMemoryGuard.install`, before other threads are started: each gets a stack for it.
///
/// - Throws: sigaction's or mmap's error.
public func noteFatalSignals() throws(Errno) {
    try retryingInterrupts { clinux_fatal_install() }
}

/// SIGILL and so on; "signal 77" for one without a name here.
public func signalName(_ signal: Int32) -> String {
    switch signal {
    case SIGHUP: "SIGHUP"
    case SIGINT: "SIGINT"
    case SIGQUIT: "SIGQUIT"
    case SIGILL: "SIGILL"
    case SIGTRAP: "SIGTRAP"
    case SIGABRT: "SIGABRT"
    case SIGBUS: "SIGBUS"
    case SIGFPE: "SIGFPE"
    case SIGKILL: "SIGKILL"
    case SIGSEGV: "SIGSEGV"
    case SIGTERM: "SIGTERM"
    case SIGSYS: "SIGSYS"
    default: "signal \(signal)"
    }
}
