internal import Platform
internal import VhostUser

/// The socket of a session: sends messages, receives answers, and waits for neither without a limit.
struct FrontendChannel: ~Copyable {
    let stream: UnixStream

    /// Connects, waiting for a back-end that is only just starting.
    init(connectingTo path: String, milliseconds: Int32) throws(FrontendError) {
        let deadline = Deadline(milliseconds: milliseconds)
        while true {
            do throws(Errno) {
                stream = try UnixStream(connectingTo: path, milliseconds: milliseconds)
                return
            } catch {
                let mayCome = error == .noEntry || error == .connectionRefused
                guard mayCome, !deadline.isOver else {
                    let advice = mayCome ? "No back-end listens there after \(milliseconds) ms." : ""
                    throw FrontendError(
                        nil, .unreachable(SystemError(cannot: "connect to", path, error, advice: advice)))
                }
                pause(milliseconds: 5)
            }
        }
    }

    borrowing func send(_ message: FrontendMessage, flags: MessageFlags, fds: [Int32]) throws(FrontendError) {
        try send(message.encode(flags: flags), kind: message.kind, fds: fds)
    }

    borrowing func send(_ bytes: [UInt8], kind: RequestKind, fds: [Int32]) throws(FrontendError) {
        do throws(Errno) {
            try unsafe bytes.span.withUnsafeBytes { (buffer) throws(Errno) in
                try unsafe stream.send(buffer, fds: fds)
            }
        } catch {
            throw FrontendError(kind, .socket(error))
        }
    }

    /// Receives the answer to a message.
    borrowing func receive(answerTo kind: RequestKind, milliseconds: Int32) throws(FrontendError) -> ReceivedReply {
        let deadline = Deadline(milliseconds: milliseconds)
        var fds = ReceivedFDs()
        let head = try receive(MessageHeader.size, for: kind, deadline, &fds)
        let header = try wellFormed(kind) { () throws(ProtocolError) in
            try MessageHeader(decoding: head.span)
        }
        let payload = try receive(header.payloadSize, for: kind, deadline, &fds)
        let fdCount = fds.count
        let reply = try wellFormed(kind) { () throws(ProtocolError) in
            try BackendReply(decoding: header, payload: payload.span, fdCount: fdCount, to: kind)
        }
        return ReceivedReply(reply: reply, fd: fds.takeFirst())
    }

    /// Whether the other side closes within a time; what else comes meanwhile is read and forgotten.
    borrowing func reachesEnd(within milliseconds: Int32) -> Bool {
        let deadline = Deadline(milliseconds: milliseconds)
        var bytes = [UInt8](repeating: 0, count: MessageHeader.maximumPayloadSize)
        while waitForInput(stream.fd.number, milliseconds: deadline.millisecondsLeft) {
            do throws(Errno) {
                var span = bytes.mutableSpan
                let part = try unsafe span.withUnsafeMutableBytes { (buffer) throws(Errno) in
                    try unsafe stream.receive(into: buffer)
                }
                if part.byteCount == 0 { return true }
            } catch {
                return true
            }
        }
        return false
    }

    /// Receives exactly `count` bytes; descriptors may come with the first of a message.
    private borrowing func receive(
        _ count: Int, for kind: RequestKind, _ deadline: Deadline, _ fds: inout ReceivedFDs
    ) throws(FrontendError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            guard waitForInput(stream.fd.number, milliseconds: deadline.millisecondsLeft) else {
                throw FrontendError(kind, .noAnswer(milliseconds: deadline.milliseconds))
            }
            let received: Int
            do throws(Errno) {
                var span = bytes.mutableSpan
                var part = try unsafe span.withUnsafeMutableBytes { (buffer) throws(Errno) in
                    try unsafe stream.receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[done...]))
                }
                if part.fds.count > 0 { fds = part.takeFDs() }
                received = part.byteCount
            } catch {
                throw FrontendError(kind, .socket(error))
            }
            guard received > 0 else { throw FrontendError(kind, .closed) }
            done += received
        }
        return bytes
    }
}

/// Runs a decoder; what it finds wrong is what the back-end said out of form.
private func wellFormed<Value>(
    _ kind: RequestKind, _ decode: () throws(ProtocolError) -> Value
) throws(FrontendError) -> Value {
    do throws(ProtocolError) {
        return try decode()
    } catch {
        throw FrontendError(kind, .malformed(error))
    }
}

/// An answer, and the descriptor that came with it.
struct ReceivedReply: ~Copyable {
    let reply: BackendReply
    var fd: OwnedFD?
}

/// A moment after which waiting ends.
struct Deadline {
    let milliseconds: Int32
    private let end: UInt64

    init(milliseconds: Int32) {
        self.milliseconds = milliseconds
        end = monotonicNanoseconds() + UInt64(max(0, milliseconds)) * 1_000_000
    }

    var isOver: Bool { monotonicNanoseconds() >= end }

    /// Rounded up, so that a wait of this length reaches the end.
    var millisecondsLeft: Int32 {
        let now = monotonicNanoseconds()
        return now >= end ? 0 : Int32(clamping: (end - now + 999_999) / 1_000_000)
    }
}
