internal import Glibc

/// An error number of the kernel, as an open value: any number may arrive.
public struct Errno: Error, RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: Int32

    @inlinable
    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// The calling thread's `errno`, to be read right after the call that failed.
    public static var current: Errno { Errno(rawValue: errno) }

    public static let notPermitted = Errno(rawValue: EPERM)
    public static let interrupted = Errno(rawValue: EINTR)
    public static let inputOutput = Errno(rawValue: EIO)
    public static let wouldBlock = Errno(rawValue: EAGAIN)
    public static let noMemory = Errno(rawValue: ENOMEM)
    public static let permissionDenied = Errno(rawValue: EACCES)
    public static let busy = Errno(rawValue: EBUSY)
    public static let invalidArgument = Errno(rawValue: EINVAL)
    public static let noSpace = Errno(rawValue: ENOSPC)
    public static let noSuchCall = Errno(rawValue: ENOSYS)
    public static let notSupported = Errno(rawValue: EOPNOTSUPP)
    public static let noEntry = Errno(rawValue: ENOENT)
    public static let connectionRefused = Errno(rawValue: ECONNREFUSED)
    public static let connectionReset = Errno(rawValue: ECONNRESET)
    public static let brokenPipe = Errno(rawValue: EPIPE)
    public static let cancelled = Errno(rawValue: ECANCELED)
    public static let timedOut = Errno(rawValue: ETIMEDOUT)

    /// The C library's sentence for the number.
    public var description: String {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { buffer in
            unsafe buffer.initialize(repeating: 0)
            let result = unsafe strerror_r(rawValue, buffer.baseAddress!, buffer.count)
            return unsafe result == 0 ? String(cString: buffer.baseAddress!) : "error \(rawValue)"
        }
    }
}

/// An operating error: what failed, on what, why, and what to do about it.
public struct SystemError: Error, CustomStringConvertible, Sendable {
    /// What was tried, as "cannot …" continues it: "open the image".
    public var action: String
    /// What it was tried on: a path, a socket, a device.
    public var subject: String
    /// The kernel's reason, if it was the kernel that refused.
    public var errno: Errno?
    /// What the operator can do, as a sentence; empty if there is nothing to add.
    public var advice: String

    public init(cannot action: String, _ subject: String, _ errno: Errno?, advice: String = "") {
        self.action = action
        self.subject = subject
        self.errno = errno
        self.advice = advice
    }

    public var description: String {
        var text = "cannot \(action)"
        if !subject.isEmpty { text += " \(subject)" }
        if let errno { text += ": \(errno)" }
        if !advice.isEmpty { text += ". \(advice)" }
        return text
    }
}

/// Runs a system call that returns -1 on failure; repeats it when a signal interrupted it.
///
/// - Throws: the error number.
@inlinable
@discardableResult
public func retryingInterrupts<Result: FixedWidthInteger>(
    _ call: () -> Result
) throws(Errno) -> Result {
    while true {
        let result = call()
        if result != -1 { return result }
        let error = Errno.current
        if error != .interrupted { throw error }
    }
}
