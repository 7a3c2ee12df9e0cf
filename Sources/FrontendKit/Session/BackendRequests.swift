internal import Platform
public import VhostUser

/// The front-end's end of the socket on which a back-end makes requests of its own.
public struct BackendRequests: ~Copyable {
    private var channel: MessageChannel

    init(_ stream: consuming UnixStream) throws(Errno) {
        channel = try MessageChannel(stream: stream)
    }

    /// Waits for the next request.
    ///
    /// - Returns: its header; nil when none came in time.
    public mutating func next(within milliseconds: Int32) throws(ConnectionEnd) -> MessageHeader? {
        guard waitForInput(channel.stream.fd.number, milliseconds: milliseconds) else { return nil }
        return try channel.receive()?.header
    }

    /// Acknowledges a request.
    ///
    /// - Parameter code: 0 for success.
    public func acknowledge(_ request: MessageHeader, _ code: UInt64 = 0) throws(ConnectionEnd) {
        try channel.send(BackendReply.value(code).encode(to: request.kind))
    }

    /// Sends bytes as they are.
    public func send(_ bytes: [UInt8]) throws(ConnectionEnd) {
        try channel.send(bytes)
    }
}
