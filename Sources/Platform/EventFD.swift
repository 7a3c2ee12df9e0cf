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
    /// - Throws: `invalidArgument` when it is anything else, which might wait, raise a signal or be somebody's file;
    ///   readlink's error without /proc.
    public init(receiving fd: consuming OwnedFD) throws(Errno) {
        let name = "anon_inode:[eventfd]"
        let link = try retryingInterrupts {
            unsafe withUnsafeTemporaryAllocation(byteCount: name.utf8.count + 1, alignment: 1) { buffer in
                let count = unsafe readlink("/proc/self/fd/\(fd.number)", buffer.baseAddress!, buffer.count)
                guard count >= 0 else { return -1 }
                return unsafe String(decoding: buffer.prefix(count), as: UTF8.self) == name ? 1 : 0
            }
        }
        guard link == 1 else { throw .invalidArgument }
        let flags = try retryingInterrupts { fcntl(fd.number, F_GETFL) }
        try retryingInterrupts { fcntl(fd.number, F_SETFL, flags | O_NONBLOCK) }
        self.fd = fd
    }

    /// Lets go whoever is made to wait for room in the counter: a peer can take O_NONBLOCK away again and fill the
    /// counter, and `signal` waits then. A counter that is not full is left alone. Never waits itself, whatever the
    /// peer does meanwhile.
    public static func makeRoom(in number: Int32) {
        guard let text = readSmallFile("/proc/self/fdinfo/\(number)") else { return }
        for line in text.split(separator: "\n") where line.hasPrefix("eventfd-count:") {
            let digits = line.drop { $0 != ":" }.dropFirst().drop { $0 == " " || $0 == "\t" }
            guard let count = UInt64(digits, radix: 16), count == .max - 1 else { return }
            _ = clinux_drain_eventfd(number)
        }
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
