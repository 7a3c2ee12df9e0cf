internal import CWire
public import Platform

/// The socket on which a device makes requests of its own (SET_BACKEND_REQ_FD).
///
/// Nothing here waits for the front-end's answer: it may itself be waiting for one of ours. So a request that is to be
/// acknowledged is sent, and the acknowledgement is read when it comes (`number` has input then).
public struct BackendChannel: ~Copyable {
    private var channel: MessageChannel
    private let acknowledged: Bool
    /// Acknowledgements to come: 0 or 1. Meanwhile nothing is sent, so that a front-end that does not read cannot make
    /// us wait for room.
    private var isWaiting = false
    /// There was something to announce while one was to come.
    private var isPending = false
    /// One may come that a worker before this one waits for.
    private var isOwed = false

    /// How long the rest of an acknowledgement may take after its first byte, and a front-end may let us wait for room
    /// for a message of 12 bytes, in milliseconds.
    private static let patience = 100

    /// - Parameter acknowledged: the front-end acknowledges requests (REPLY_ACK).
    /// - Throws: the descriptor is no socket.
    public init(_ fd: consuming OwnedFD, acknowledged: Bool) throws(Errno) {
        channel = try MessageChannel(stream: UnixStream(owning: fd), patience: Self.patience)
        self.acknowledged = acknowledged
    }

    /// The socket's number, to watch it for acknowledgements.
    public var number: Int32 { channel.stream.fd.number }

    /// Tells the front-end that the configuration space has changed (CONFIG_CHANGE_MSG): it reads it anew.
    ///
    /// - Throws: the front-end takes no more requests; the channel is not to be used again.
    public mutating func announceConfiguration() throws(ConnectionEnd) {
        guard !isWaiting else {
            isPending = true
            return
        }
        let flags: MessageFlags = acknowledged ? .needReply : []
        try channel.send(MessageHeader(kind: Self.configurationChange, flags: flags, payloadSize: 0).encode())
        isWaiting = acknowledged
        isPending = false
    }

    /// A worker before this one may have sent a request whose acknowledgement has not come yet.
    public mutating func mayBeOwed() { isOwed = acknowledged }

    /// Reads what has come. An acknowledgement is taken from the socket in one call: whoever dies before leaves it to
    /// the next worker whole.
    ///
    /// - Returns: false when the front-end says that it could not do what it was asked for.
    /// - Throws: the front-end takes no more requests; the channel is not to be used again.
    public mutating func receive() throws(ConnectionEnd) -> Bool {
        guard let message = try channel.receive(peeking: true) else { return true }
        try channel.discard(MessageHeader.size + message.header.payloadSize)
        guard isWaiting || isOwed, message.header.kind == Self.configurationChange else {
            throw .malformed(ProtocolError(message.header.kind, .wrongReply(to: Self.configurationChange)))
        }
        let reply = try message.reply(to: Self.configurationChange)
        // Which of the two it answers nobody can say.
        if isWaiting { isWaiting = false } else { isOwed = false }
        if isPending { try announceConfiguration() }
        return reply == .success
    }

    /// Numbers on this channel are its own: this is no SET_FEATURES.
    private static let configurationChange = RequestKind(rawValue: UInt32(WIRE_VHOST_USER_BACKEND_CONFIG_CHANGE_MSG))
}
