internal import CLinux
internal import Glibc

/// Rings an eventfd once: adds 1 to its counter, which wakes whoever waits on it.
///
/// A full counter (EAGAIN) means that the other side has not looked for 2^64 - 2 rings: it is as awake as it gets.
public func signalEvent(_ number: Int32) {
    var one: UInt64 = 1
    while unsafe write(number, &one, 8) == -1, Errno.current == .interrupted {}
}

/// An eventfd in which a thread waits (`waitForEvent`), close-on-exec.
public func makeBlockingEvent() throws(Errno) -> OwnedFD {
    OwnedFD(owning: try retryingInterrupts { eventfd(0, Int32(EFD_CLOEXEC)) })
}

/// Waits until a blocking eventfd is rung, and takes that.
public func waitForEvent(_ number: Int32) {
    var count: UInt64 = 0
    while unsafe read(number, &count, 8) == -1, Errno.current == .interrupted {}
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

    /// Takes what a peer says is an eventfd. It is made non-blocking, for both sides: ringing it must never wait for
    /// the peer.
    ///
    /// The kernel tells what it is in /proc only, which a worker has not. So it must be a file without a place in any
    /// file system, like an eventfd of our own, and one that can be written to at once: of such files only eventfds
    /// take what is written. One whose counter is full is emptied for that.
    ///
    /// - Throws: `invalidArgument` when it is anything else, which might wait, raise a signal or be somebody's file.
    public init(receiving fd: consuming OwnedFD) throws(Errno) {
        let own = try EventFD()
        guard try Self.identity(of: own.fd) == Self.identity(of: fd) else { throw .invalidArgument }
        Self.makeRoom(in: fd.number)
        guard Self.hasRoom(fd.number) else { throw .invalidArgument }
        let flags = try retryingInterrupts { fcntl(fd.number, F_GETFL) }
        try retryingInterrupts { fcntl(fd.number, F_SETFL, flags | O_NONBLOCK) }
        self.fd = fd
    }

    /// Lets go whoever is made to wait for room in the counter: a peer can take O_NONBLOCK away again and fill the
    /// counter, and `signal` waits then. A counter that is not full is left alone. Never waits itself, whatever the
    /// peer does meanwhile.
    public static func makeRoom(in number: Int32) {
        if !hasRoom(number) { _ = clinux_drain_eventfd(number) }
    }

    /// Whether it can be rung without waiting; false also for what nobody can wait for, such as a plain file.
    private static func hasRoom(_ number: Int32) -> Bool {
        var entry = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
        let count = try? retryingInterrupts { unsafe poll(&entry, 1, 0) }
        return count == 1 && entry.revents & Int16(POLLOUT) != 0
    }

    /// The inode, and its device: all files that have no place share one, by the kernel's kind of them.
    private static func identity(of fd: borrowing OwnedFD) throws(Errno) -> [UInt64] {
        var status = stat()
        try retryingInterrupts { unsafe fstat(fd.number, &status) }
        return [UInt64(status.st_dev), UInt64(status.st_ino)]
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
