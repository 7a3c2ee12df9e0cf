internal import CWire

/// What every message begins with, in either direction.
///
/// vhost-user: "Header". 12 bytes in the byte order of the machine.
public struct MessageHeader: Hashable, Sendable {
    /// What is asked for or, in a reply, what was.
    public var kind: RequestKind
    /// The flag word without the version.
    public var flags: MessageFlags
    /// Bytes that follow the header.
    public var payloadSize: Int

    public init(kind: RequestKind, flags: MessageFlags = [], payloadSize: Int) {
        self.kind = kind
        self.flags = flags
        self.payloadSize = payloadSize
    }

    /// Bytes of a header.
    public static let size = wireSize(wire_vhost_user_header.self)

    /// The most payload bytes that are accepted. The largest message that is understood has 268; the rest is room for
    /// messages that are read only to be refused.
    public static let maximumPayloadSize = 4096

    /// Reads a header.
    ///
    /// - Parameter bytes: exactly `size` bytes, in memory that no peer can write to.
    /// - Throws: `unsupportedVersion`, `payloadTooLong`.
    public init(decoding bytes: Span<UInt8>) throws(ProtocolError) {
        precondition(bytes.count == Self.size, "a header has \(Self.size) bytes")
        let wire = bytes.load(wire_vhost_user_header.self)
        let kind = RequestKind(rawValue: wire.request)
        let version = wire.flags & UInt32(WIRE_VHOST_USER_VERSION_MASK)
        guard version == UInt32(WIRE_VHOST_USER_VERSION) else {
            throw ProtocolError(kind, .unsupportedVersion(version))
        }
        guard wire.size <= UInt32(Self.maximumPayloadSize) else {
            throw ProtocolError(kind, .payloadTooLong(wire.size))
        }
        self.init(
            kind: kind, flags: MessageFlags(rawValue: wire.flags & ~UInt32(WIRE_VHOST_USER_VERSION_MASK)),
            payloadSize: Int(wire.size))
    }

    /// The header's bytes.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(
            structure: wire_vhost_user_header(
                request: kind.rawValue, flags: flags.rawValue | UInt32(WIRE_VHOST_USER_VERSION),
                size: UInt32(payloadSize)))
        return bytes
    }

    /// A whole message: the header for this payload, then the payload.
    static func message(_ kind: RequestKind, _ flags: MessageFlags, _ payload: [UInt8]) -> [UInt8] {
        MessageHeader(kind: kind, flags: flags, payloadSize: payload.count).encode() + payload
    }
}

/// The flags of a message, without its version. Bits that the specification does not define are kept and ignored.
public struct MessageFlags: OptionSet, Hashable, Sendable {
    public var rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// The message answers one of the same kind. `VHOST_USER_REPLY_MASK`
    public static let reply = MessageFlags(rawValue: UInt32(WIRE_VHOST_USER_REPLY_MASK))
    /// The sender wants an acknowledgement (REPLY_ACK). `VHOST_USER_NEED_REPLY_MASK`
    public static let needReply = MessageFlags(rawValue: UInt32(WIRE_VHOST_USER_NEED_REPLY_MASK))
}
