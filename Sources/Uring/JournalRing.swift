internal import CLinux
internal import Glibc
internal import Platform

/// A ring for the system calls of a conversation, one after the other, each of which must be known to have happened or
/// not, even when the caller is killed in it: the completion queue is the journal of them.
///
/// The owner notes an operation's token and index where its successor finds them, then performs it. Its completion
/// stays in the queue until `forget`.
public struct JournalRing: ~Copyable {
    private var ring: Ring

    /// Takes a ring up.
    ///
    /// - Parameter ring: used for nothing else, by this process or by earlier ones.
    public init(_ ring: consuming Ring) {
        self.ring = ring
        _ = self.ring.takeUp()
    }

    /// The index that the next operation will have.
    public var nextIndex: UInt32 { ring.lastIndex &+ 1 }

    /// What became of an operation of a worker before this one.
    public enum Outcome: Hashable, Sendable {
        /// It was never started.
        case notStarted
        /// It has happened, with this result: a count, or a negative error number.
        case completed(Int32)
        /// The kernel has it and does not say.
        case unknown
    }

    /// Finds out what became of an operation that an earlier worker has noted.
    ///
    /// - Parameter milliseconds: how long a completion may take that the kernel still owes.
    public mutating func outcome(token: UInt64, index: UInt32, milliseconds: Int) -> Outcome {
        if !ring.hadTaken(index) { return .notStarted }
        let end = monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        repeat {
            ring.runDeferredWork()
            if let result = ring.result(of: token) { return .completed(result) }
            usleep(200)
        } while monotonicNanoseconds() < end
        return .unknown
    }

    /// Takes bytes from a socket's queue without looking at them; descriptors among them are closed. Does not wait.
    ///
    /// - Parameter count: at most 65536.
    /// - Returns: how many; a negative error number.
    public mutating func discard(_ count: Int, from socket: Int32, token: UInt64) -> Int32 {
        unsafe withUnsafeTemporaryAllocation(byteCount: count, alignment: 1) { buffer in
            unsafe perform(.receive(socket: socket, buffer: buffer.baseAddress!, count: UInt32(count)), token)
        }
    }

    /// Sends bytes, and a descriptor with them. Does not wait, and raises no signal.
    ///
    /// - Returns: how many were sent; a negative error number.
    public mutating func send(_ bytes: [UInt8], with fd: Int32?, to socket: Int32, token: UInt64) -> Int32 {
        unsafe withUnsafeTemporaryAllocation(of: clinux_outgoing.self, capacity: 1) { out in
            let message = out.baseAddress!
            return unsafe bytes.withUnsafeBytes { bytes in
                unsafe clinux_lay_out(message, bytes.baseAddress, bytes.count, fd ?? -1)
                return unsafe perform(.send(socket: socket, message: UnsafeMutableRawPointer(message)), token)
            }
        }
    }

    private mutating func perform(_ operation: IOOperation, _ token: UInt64) -> Int32 {
        // Its own queue, of which nothing is left behind by the operation before.
        guard ring.enqueue(operation, token: token) else { return -EBUSY }
        ring.submit()
        while true {
            ring.runDeferredWork()
            if let result = ring.result(of: token) { return result }
            // The kernel carries out at once what may not wait; it had no memory for it, or was interrupted.
            if ring.queuedCount > 0 { ring.submit() }
        }
    }

    /// Lets go of completions: nobody will ask for them any more.
    public mutating func forget() {
        while ring.nextCompletion() != nil {}
        ring.releaseCompletions()
    }
}
