public import Platform

/// A message as it came, whole, and the file descriptors that came with it.
public struct IncomingMessage: ~Copyable {
    public let header: MessageHeader
    public let payload: [UInt8]
    /// Those that nobody takes are closed.
    public var fds: ReceivedFDs

    /// Takes the descriptors out; none are left behind.
    public mutating func takeFDs() -> ReceivedFDs {
        var taken = ReceivedFDs()
        swap(&taken, &fds)
        return taken
    }

    /// Reads it as a front-end's request.
    ///
    /// - Throws: `malformed`.
    public borrowing func request() throws(ConnectionEnd) -> FrontendMessage {
        do throws(ProtocolError) {
            return try FrontendMessage(decoding: header, payload: payload.span, fdCount: fds.count)
        } catch {
            throw .malformed(error)
        }
    }

    /// Reads it as a front-end's request that is still in the socket.
    ///
    /// A look that ends at the end of a message without descriptors shows those of the next message, too: the kernel
    /// (6.18) goes on to the next buffer before it finds that it has enough. They are closed here; it is a duplicate.
    ///
    /// - Throws: `malformed`.
    public mutating func lookedAtRequest() throws(ConnectionEnd) -> FrontendMessage {
        do throws(ProtocolError) {
            let message = try FrontendMessage(decoding: header, lookedAt: payload.span, fdCount: fds.count)
            if message.fdCount.contains(0) { fds = ReceivedFDs() }
            return message
        } catch {
            throw .malformed(error)
        }
    }

    /// Reads it as a back-end's reply to a request.
    ///
    /// - Throws: `malformed`.
    public borrowing func reply(to kind: RequestKind) throws(ConnectionEnd) -> BackendReply {
        do throws(ProtocolError) {
            return try BackendReply(decoding: header, payload: payload.span, fdCount: fds.count, to: kind)
        } catch {
            throw .malformed(error)
        }
    }
}

/// A stream socket cut into messages; the same for either side.
///
/// Never more is read than belongs to the message at hand: descriptors come with the first byte of a message, and the
/// kernel gives them to whoever reads that byte.
public struct MessageChannel: ~Copyable {
    public let stream: UnixStream
    private let patience: Int
    private var buffer: [UInt8]

    /// How long the rest of a message may take after its first byte, in milliseconds, and how long a reply may wait for
    /// a peer that does not read. A living peer sends a message in one go.
    public static let defaultPatience = 10_000

    /// - Parameter patience: in milliseconds.
    /// - Throws: setsockopt's error; the descriptor may not be a socket.
    public init(stream: consuming UnixStream, patience: Int = Self.defaultPatience) throws(Errno) {
        try stream.limitSending(milliseconds: patience)
        self.stream = stream
        self.patience = patience
        buffer = [UInt8](repeating: 0, count: MessageHeader.size + MessageHeader.maximumPayloadSize)
    }

    /// Reads the next message. Waits, for a bounded time, only for the rest of one that has begun.
    ///
    /// - Parameter peeking: leave it in the socket; its descriptors are duplicates.
    /// - Returns: nil when no message has begun to arrive.
    public mutating func receive(peeking: Bool = false) throws(ConnectionEnd) -> IncomingMessage? {
        if peeking { try peekFromStart() }
        var message = PartialMessage()
        var deadline: UInt64 = 0
        // Each turn brings at least a byte of at most 4108, or waits within the deadline.
        while message.count < message.size {
            guard var piece = try Self.receivePiece(of: message, from: stream, into: &buffer, peeking) else {
                if message.count == 0 { return nil }
                try wait(until: deadline, for: message, peeking)
                continue
            }
            if piece.byteCount == 0 { throw message.end }
            if message.count == 0 { deadline = monotonicNanoseconds() + UInt64(patience) * 1_000_000 }
            var fds = piece.takeFDs()
            // A look at a message's later bytes shows the descriptors of its first one again.
            if peeking, message.count > 0 { fds = ReceivedFDs() }
            try message.append(count: piece.byteCount, fds: fds, lostFDs: piece.lostFDs, in: buffer)
        }
        return try message.finish(buffer)
    }

    /// Takes a message from the socket that was looked at whole.
    ///
    /// - Parameter count: its bytes.
    public borrowing func discard(_ count: Int) throws(ConnectionEnd) {
        do throws(Errno) {
            var rest = [UInt8](repeating: 0, count: count)
            var span = rest.mutableSpan
            _ = try unsafe span.withUnsafeMutableBytes { bytes throws(Errno) in
                try unsafe stream.receive(into: bytes, waiting: false).byteCount
            }
        } catch {
            throw .system(SystemError(cannot: "receive from", "the vhost-user socket", error))
        }
    }

    /// Sends a message.
    ///
    /// - Parameter fds: they stay open here.
    public borrowing func send(_ bytes: [UInt8], fds: [Int32] = []) throws(ConnectionEnd) {
        do throws(Errno) {
            // The bytes live as long as the call.
            try unsafe bytes.span.withUnsafeBytes { bytes throws(Errno) in try unsafe stream.send(bytes, fds: fds) }
        } catch {
            switch error {
            case .brokenPipe, .connectionReset: throw .peerClosed
            case .wouldBlock: throw .peerDoesNotRead
            default: throw .system(SystemError(cannot: "send on", "the vhost-user socket", error))
            }
        }
    }

    /// Reads what is there of a message. Nil when nothing is.
    private static func receivePiece(
        of message: borrowing PartialMessage, from stream: borrowing UnixStream, into buffer: inout [UInt8],
        _ peeking: Bool
    ) throws(ConnectionEnd) -> Received? {
        let rest = message.count..<message.size
        do throws(Errno) {
            var span = buffer.mutableSpan
            // The slice lies within the buffer, which lives as long as the call.
            return try unsafe span.withUnsafeMutableBytes { bytes throws(Errno) in
                let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[rest])
                return try unsafe stream.receive(into: piece, waiting: false, peeking: peeking)
            }
        } catch {
            switch error {
            case .wouldBlock: return nil
            // The peer went without reading all that we sent.
            case .connectionReset: throw message.end
            default: throw .system(SystemError(cannot: "receive from", "the vhost-user socket", error))
            }
        }
    }

    private borrowing func peekFromStart() throws(ConnectionEnd) {
        do throws(Errno) {
            try stream.peekFromStart()
        } catch {
            throw .system(SystemError(cannot: "look into", "the vhost-user socket", error))
        }
    }

    private borrowing func wait(
        until deadline: UInt64, for message: borrowing PartialMessage, _ peeking: Bool
    ) throws(ConnectionEnd) {
        let now = monotonicNanoseconds()
        let milliseconds = now < deadline ? (deadline - now + 999_999) / 1_000_000 : 0
        if peeking, milliseconds > 0 {
            // What was looked at is input still: there is nothing to wait for but time.
            pause(milliseconds: 1)
            return
        }
        guard milliseconds > 0, waitForInput(stream.fd.number, milliseconds: Int32(clamping: milliseconds)) else {
            throw .stalled(message.header?.kind, received: message.count, of: message.size)
        }
    }
}

/// What has arrived of a message.
private struct PartialMessage: ~Copyable {
    /// Bytes that are in the buffer.
    private(set) var count = 0
    /// Bytes that the message has as far as is known: a header's, then the whole message's.
    private(set) var size = MessageHeader.size
    /// Known once its bytes are there.
    private(set) var header: MessageHeader?
    private var fds = ReceivedFDs()
    private var lostFDs = false
    private var misplacedFDs = false

    mutating func append(
        count added: Int, fds: consuming ReceivedFDs, lostFDs: Bool, in buffer: [UInt8]
    ) throws(ConnectionEnd) {
        if count == 0 {
            self.fds = fds
        } else if fds.count > 0 {
            misplacedFDs = true
        }
        if lostFDs { self.lostFDs = true }
        count += added
        guard header == nil, count == size else { return }
        do throws(ProtocolError) {
            let header = try MessageHeader(decoding: buffer.span.extracting(first: MessageHeader.size))
            self.header = header
            size += header.payloadSize
        } catch {
            throw .malformed(error)
        }
    }

    /// Why the connection ends when no more bytes come.
    var end: ConnectionEnd {
        count == 0 ? .peerClosed : .cutOff(header?.kind, received: count, of: size)
    }

    consuming func finish(_ buffer: [UInt8]) throws(ConnectionEnd) -> IncomingMessage {
        guard let header else { preconditionFailure("a message without header is not whole") }
        if lostFDs { throw .malformed(ProtocolError(header.kind, .lostFDs)) }
        if misplacedFDs { throw .malformed(ProtocolError(header.kind, .misplacedFDs)) }
        return IncomingMessage(header: header, payload: Array(buffer[MessageHeader.size..<size]), fds: fds)
    }
}
