internal import CLinux
internal import Glibc

/// Rings an eventfd once: adds 1 to its counter, which wakes whoever waits on it.
///
/// A full counter (EAGAIN) means that the other side has not looked for 2^64 - 2 rings: it is as awake as it gets.
public func signalEvent(_ number: Int32) {
    var one: UInt64 = 1
    while unsafe write(number, &one, 8) == -1, Errno.current == .interrupted {}
}

/// An eventfd of our own, close-on-exec and non-blocking.
public struct EventFD: ~Copyable, Sendable {
    public let fd: OwnedFD

    public init() throws(Errno) {
        let flags = Int32(EFD_CLOEXEC | EFD_NONBLOCK)
        fd = OwnedFD(owning: try retryingInterrupts { eventfd(0, flags) })
    }

    /// Takes an eventfd that was received.
    public init(owning fd: consuming OwnedFD) {
        self.fd = fd
    }

    /// Adds 1 to the counter.
    public borrowing func signal() {
        signalEvent(fd.number)
    }

    /// Takes the counter back to 0; false when it was 0 already.
    @discardableResult
    public borrowing func clear() -> Bool {
        var value: UInt64 = 0
        return unsafe read(fd.number, &value, 8) == 8
    }
}
