internal import Glibc

/// Tells when a file may have got another size: whoever had it open for writing has closed it. What is written through
/// descriptors that stay open, our own among them, says nothing: so watching costs nothing while a file is used.
public struct FileWatch: ~Copyable, Sendable {
    private let fd: OwnedFD

    /// - Parameter number: an open file; what is watched is the file, not its name.
    /// - Throws: inotify_init1's or inotify_add_watch's error.
    public init(_ number: Int32) throws(Errno) {
        let watch = OwnedFD(owning: try retryingInterrupts { inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK)) })
        try retryingInterrupts {
            unsafe inotify_add_watch(watch.number, "/proc/self/fd/\(number)", UInt32(IN_CLOSE_WRITE))
        }
        fd = watch
    }

    /// Has input when there is something to look at.
    public var number: Int32 { fd.number }

    /// Forgets what has come so far.
    public borrowing func clear() {
        unsafe withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            // One read brings all there is of a watch on one file: equal events that follow each other are one.
            _ = unsafe read(fd.number, buffer.baseAddress, buffer.count)
        }
    }
}
