internal import CLinux
internal import Glibc

/// What a receive brought.
public struct Received: ~Copyable {
    /// Bytes placed in the buffer; 0 at the end of the stream.
    public var byteCount: Int
    /// The descriptors that came with them.
    public var fds: ReceivedFDs
    /// True when the kernel dropped descriptors (more than 253, or this process may open no more).
    public var lostFDs: Bool

    /// Takes the descriptors out; none are left behind.
    public mutating func takeFDs() -> ReceivedFDs {
        var taken = ReceivedFDs()
        swap(&taken, &fds)
        return taken
    }
}

/// One end of a connected UNIX stream socket that can pass file descriptors.
public struct UnixStream: ~Copyable, Sendable {
    public let fd: OwnedFD

    public init(owning fd: consuming OwnedFD) {
        self.fd = fd
    }

    /// Connects to the socket at `path`.
    ///
    /// - Parameter milliseconds: how long connecting, and each later send, may wait for the other side; nil: for ever.
    /// - Throws: connect's error; `wouldBlock` when the time was over; ENAMETOOLONG for a path over 107 bytes.
    public init(connectingTo path: String, milliseconds: Int32? = nil) throws(Errno) {
        let fd = OwnedFD(owning: try retryingInterrupts { socket(AF_UNIX, streamSocketType, 0) })
        if let milliseconds {
            var limit = timeval(tv_sec: Int(milliseconds / 1000), tv_usec: Int(milliseconds % 1000) * 1000)
            let size = socklen_t(MemoryLayout<timeval>.size)
            try retryingInterrupts { unsafe setsockopt(fd.number, SOL_SOCKET, SO_SNDTIMEO, &limit, size) }
        }
        try retryingInterrupts { unsafe clinux_connect(fd.number, path) }
        self.fd = fd
    }

    /// The process that listened or made the pair (SO_PEERCRED); nil where it is not of our PID namespace.
    public var peerProcess: Int32? {
        let pid = clinux_peer_pid(fd.number)
        return pid > 0 ? pid : nil
    }

    /// Receives up to `buffer.count` bytes and the descriptors that come with the first of them.
    ///
    /// - Parameters:
    ///   - waiting: false returns at once, with `wouldBlock`, when there is nothing.
    ///   - peeking: leave everything in the socket, and get duplicates of the descriptors. See `peekFromStart`.
    /// - Throws: recvmsg's error.
    public borrowing func receive(
        into buffer: UnsafeMutableRawBufferPointer, waiting: Bool = true, peeking: Bool = false
    ) throws(Errno) -> Received {
        var numbers = [Int32](repeating: -1, count: Int(CLINUX_MAX_FDS))
        var count: UInt32 = 0
        var truncated: Int32 = 0
        let flags = (waiting ? 0 : Int32(MSG_DONTWAIT)) | (peeking ? Int32(MSG_PEEK) : 0)
        let received = try retryingInterrupts {
            unsafe clinux_receive(fd.number, buffer.baseAddress, buffer.count, flags, &numbers, &count, &truncated)
        }
        let fds = ReceivedFDs(owning: Array(numbers.prefix(Int(count))))
        return Received(byteCount: received, fds: fds, lostFDs: truncated != 0)
    }

    /// Lets the next receive that peeks begin at the first byte in the socket; each further one goes on where the one
    /// before has ended (SO_PEEK_OFF).
    ///
    /// - Throws: setsockopt's error.
    public borrowing func peekFromStart() throws(Errno) {
        var offset: Int32 = 0
        let size = socklen_t(MemoryLayout<Int32>.size)
        try retryingInterrupts { unsafe setsockopt(fd.number, SOL_SOCKET, SO_PEEK_OFF, &offset, size) }
    }

    /// Limits how long one `send` may wait for a peer that does not read (SO_SNDTIMEO).
    ///
    /// - Throws: setsockopt's error.
    public borrowing func limitSending(milliseconds: Int) throws(Errno) {
        var limit = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
        let size = socklen_t(MemoryLayout<timeval>.size)
        try retryingInterrupts { unsafe setsockopt(fd.number, SOL_SOCKET, SO_SNDTIMEO, &limit, size) }
    }

    /// Sends all bytes, the descriptors with the first of them.
    ///
    /// - Parameter fds: at most 253; they stay open here.
    /// - Throws: sendmsg's error; EPIPE, never a signal, when the other side is gone; `wouldBlock` when the time that
    ///   `limitSending` gave is over. Part of the bytes may have been sent.
    public borrowing func send(_ bytes: UnsafeRawBufferPointer, fds: [Int32] = []) throws(Errno) {
        var rest = unsafe bytes
        var fds = fds
        while unsafe !rest.isEmpty {
            let sent = try retryingInterrupts {
                unsafe clinux_send(fd.number, rest.baseAddress, rest.count, fds, UInt32(fds.count))
            }
            fds = []
            unsafe rest = UnsafeRawBufferPointer(rebasing: rest[sent...])
        }
    }
}

/// Who may connect to a socket in the file system. What is nil stays as the process's umask and credentials make it.
public struct SocketAccess: Sendable, Equatable {
    /// Permission bits.
    public var mode: UInt32?
    /// User number.
    public var owner: UInt32?
    /// Group number.
    public var group: UInt32?

    public init(mode: UInt32? = nil, owner: UInt32? = nil, group: UInt32? = nil) {
        self.mode = mode
        self.owner = owner
        self.group = group
    }

    /// Changes who may connect to a socket that is there.
    ///
    /// - Throws: ENOTSOCK when it is something else, a symbolic link for instance; else the system's error.
    public func apply(toSocket path: String) throws(Errno) {
        let fd = OwnedFD(owning: try retryingInterrupts { unsafe clinux_open_path(path) })
        var status = stat()
        try retryingInterrupts { unsafe fstat(fd.number, &status) }
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw Errno(rawValue: ENOTSOCK) }
        // Nobody can put another file there meanwhile.
        try apply(to: "/proc/self/fd/\(fd.number)")
    }

    fileprivate func apply(to path: String) throws(Errno) {
        if owner != nil || group != nil {
            // The number of all ones leaves that one as it is.
            try retryingInterrupts { unsafe chown(path, owner ?? .max, group ?? .max) }
        }
        if let mode { try retryingInterrupts { unsafe chmod(path, mode) } }
    }
}

/// A listening UNIX stream socket.
public struct UnixListener: ~Copyable, Sendable {
    public let fd: OwnedFD

    /// Takes a socket that somebody else made and listens on.
    public init(owning fd: consuming OwnedFD) {
        self.fd = fd
    }

    /// Listens at `path`. A socket that a dead process left there is replaced; one that answers is not, nor anything
    /// that is no socket.
    ///
    /// The socket appears at `path` when it can be connected to and not before: it is made beside it, as `path~`.
    ///
    /// - Parameter access: who may connect; set before anybody can.
    /// - Throws: EADDRINUSE when another process listens there, ENAMETOOLONG for a path over 106 bytes, else the
    ///   system's error.
    public init(at path: String, access: SocketAccess = SocketAccess(), backlog: Int32 = 8) throws(Errno) {
        if try Self.isTaken(path) { throw Errno(rawValue: EADDRINUSE) }
        let fd = OwnedFD(owning: try retryingInterrupts { socket(AF_UNIX, streamSocketType, 0) })
        let draft = path + "~"
        unsafe unlink(draft)
        try retryingInterrupts { unsafe clinux_bind(fd.number, draft) }
        do throws(Errno) {
            try access.apply(to: draft)
            try retryingInterrupts { listen(fd.number, backlog) }
            try retryingInterrupts { unsafe rename(draft, path) }
        } catch {
            unsafe unlink(draft)
            throw error
        }
        self.fd = fd
    }

    /// Whether a process listens at `path`.
    ///
    /// - Throws: what connecting says when something else is there.
    private static func isTaken(_ path: String) throws(Errno) -> Bool {
        do throws(Errno) {
            _ = try UnixStream(connectingTo: path)
            return true
        } catch {
            guard error == .connectionRefused || error == .noEntry else { throw error }
            var status = stat()
            guard unsafe lstat(path, &status) == 0 else { return false }
            guard status.st_mode & S_IFMT == S_IFSOCK else { throw Errno(rawValue: ENOTSOCK) }
            return false
        }
    }

    /// Whether a socket listens, or is connected.
    public static func isListening(_ number: Int32) -> Bool {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return unsafe getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value != 0
    }

    /// Takes the next connection; waits for it.
    public borrowing func accept() throws(Errno) -> UnixStream {
        let number = try retryingInterrupts {
            accept4(fd.number, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
        }
        return UnixStream(owning: OwnedFD(owning: number))
    }
}

/// Two connected stream sockets.
public struct UnixStreamPair: ~Copyable {
    public let first: UnixStream
    public let second: UnixStream

    public init() throws(Errno) {
        var numbers: (Int32, Int32) = (-1, -1)
        let result = unsafe withUnsafeMutablePointer(to: &numbers) { pair in
            unsafe pair.withMemoryRebound(to: Int32.self, capacity: 2) {
                unsafe socketpair(AF_UNIX, streamSocketType, 0, $0)
            }
        }
        guard result == 0 else { throw .current }
        first = UnixStream(owning: OwnedFD(owning: numbers.0))
        second = UnixStream(owning: OwnedFD(owning: numbers.1))
    }
}

private let streamSocketType = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)

/// Connects a UNIX socket of any type to whoever listens at a path.
///
/// - Throws: connect's error; ENAMETOOLONG for a path over 107 bytes.
public func connectSocket(_ fd: borrowing OwnedFD, to path: String) throws(Errno) {
    try retryingInterrupts { unsafe clinux_connect(fd.number, path) }
}
