internal import CLinux
internal import Glibc
public import Platform

/// One end of the channel between a supervisor and a worker: whole messages, in order, each with at most one
/// descriptor.
///
/// Whoever holds an end in one thread sends and receives there.
public struct CustodyChannel: ~Copyable, Sendable {
    public let fd: OwnedFD

    /// How long a send may wait for a peer that does not read, in milliseconds.
    public static let patience = 10_000

    /// Takes an end that was inherited or made by `pair`.
    public init(owning fd: consuming OwnedFD) {
        self.fd = fd
    }

    /// Two connected ends, both close-on-exec.
    ///
    /// - Throws: socketpair's or setsockopt's error.
    public static func pair() throws(Errno) -> (first: Int32, second: Int32) {
        var numbers: [Int32] = [-1, -1]
        let kind = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        try retryingInterrupts { unsafe socketpair(AF_UNIX, kind, 0, &numbers) }
        var limit = timeval(tv_sec: patience / 1000, tv_usec: 0)
        for number in numbers {
            _ = unsafe setsockopt(number, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        return (numbers[0], numbers[1])
    }

    /// Sends a message.
    ///
    /// - Parameter number: a descriptor that stays open here, or nil.
    /// - Throws: sendmsg's error; `brokenPipe` when the peer is gone, `wouldBlock` when it does not read.
    public borrowing func send(_ message: CustodyMessage, with number: Int32? = nil) throws(Errno) {
        let bytes = message.encode()
        let fds = number.map { [$0] } ?? []
        _ = try retryingInterrupts { unsafe clinux_send(fd.number, bytes, bytes.count, fds, UInt32(fds.count)) }
    }

    /// What came.
    public enum Arrival: ~Copyable {
        case nothing
        /// The peer has closed its end, or is dead.
        case closed
        case message(CustodyMessage, fds: ReceivedFDs)
        /// A datagram that is no message; its descriptors were closed.
        case unreadable(CustodyMessageError)
    }

    /// Takes the next message; returns at once. What a peer has sent before its death comes before `closed`.
    ///
    /// - Parameter peeking: leaves the message where it is, and gives duplicates of its descriptors: whoever dies
    ///   before it is carried out finds it again.
    /// - Throws: recvmsg's error.
    public borrowing func receive(peeking: Bool = false) throws(Errno) -> Arrival {
        let flags = Int32(MSG_DONTWAIT) | (peeking ? Int32(MSG_PEEK) : 0)
        var buffer = [UInt8](repeating: 0, count: CustodyMessage.maximumBytes)
        var numbers = [Int32](repeating: -1, count: Int(CLINUX_MAX_FDS))
        var count: UInt32 = 0
        var truncated: Int32 = 0
        func receiveOnce() throws(Errno) -> Int {
            try retryingInterrupts {
                unsafe clinux_receive(fd.number, &buffer, buffer.count, flags, &numbers, &count, &truncated)
            }
        }
        let received: Int
        do throws(Errno) {
            do throws(Errno) {
                received = try receiveOnce()
            } catch .connectionReset {
                // A peer that ends with messages unread leaves this error, once, before what it has sent itself. To
                // take it for the end would lose those messages, or carry the one out twice that was peeked at.
                received = try receiveOnce()
            }
        } catch {
            switch error {
            case .wouldBlock: return .nothing
            case .connectionReset: return .closed
            default: throw error
            }
        }
        let fds = ReceivedFDs(owning: Array(numbers.prefix(Int(count))))
        // No message of ours is empty.
        if received == 0 { return .closed }
        do throws(CustodyMessageError) {
            return .message(try CustodyMessage(decoding: buffer[..<received]), fds: fds)
        } catch {
            return .unreadable(error)
        }
    }
}
