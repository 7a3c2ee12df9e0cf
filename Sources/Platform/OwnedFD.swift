internal import CLinux
internal import Glibc

/// A file descriptor with exactly one owner, closed when the owner lets go of it.
public struct OwnedFD: ~Copyable, Sendable {
    /// The number, for the length of one call; never kept.
    public let number: Int32

    /// Takes ownership of an open descriptor.
    public init(owning number: Int32) {
        precondition(number >= 0, "not a file descriptor")
        self.number = number
    }

    /// Gives the descriptor up without closing it.
    public consuming func release() -> Int32 {
        let number = self.number
        discard self
        return number
    }

    /// Another descriptor of the same open file, close-on-exec.
    public func duplicate() throws(Errno) -> OwnedFD {
        OwnedFD(owning: try retryingInterrupts { fcntl(number, F_DUPFD_CLOEXEC, 3) })
    }

    /// The length of the file in bytes; nil for what has none.
    public borrowing func fileSize() throws(Errno) -> UInt64? {
        var status = stat()
        try retryingInterrupts { unsafe fstat(number, &status) }
        return UInt64(exactly: status.st_size)
    }

    /// The size of a block device in bytes.
    ///
    /// - Throws: ioctl's error (BLKGETSIZE64).
    public borrowing func blockDeviceSize() throws(Errno) -> UInt64 {
        var size: UInt64 = 0
        try retryingInterrupts { unsafe clinux_block_device_size(number, &size) }
        return size
    }

    deinit {
        _ = close(number)
    }
}

/// Descriptors received with a message, owned together. Those that nobody takes are closed.
public struct ReceivedFDs: ~Copyable, Sendable {
    private var numbers: [Int32]

    /// Takes ownership of all of them.
    public init(owning numbers: [Int32] = []) {
        self.numbers = numbers
    }

    /// Takes one more in, as the newest.
    public mutating func append(_ fd: consuming OwnedFD) { numbers.append(fd.release()) }

    /// How many are still here.
    public var count: Int { numbers.count }

    /// Takes the oldest one out, or nil when none is left.
    public mutating func takeFirst() -> OwnedFD? {
        numbers.isEmpty ? nil : OwnedFD(owning: numbers.removeFirst())
    }

    deinit {
        for number in numbers { _ = close(number) }
    }
}

/// Another descriptor of the open file that a number stands for, close-on-exec.
///
/// - Throws: fcntl's error.
public func duplicateDescriptor(_ number: Int32) throws(Errno) -> Int32 {
    try retryingInterrupts { fcntl(number, F_DUPFD_CLOEXEC, 3) }
}
