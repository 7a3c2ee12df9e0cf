public import Platform

/// Why a connection ended. One line of a log.
public enum ConnectionEnd: Error, Sendable, CustomStringConvertible {
    /// The peer closed it between two messages, or did not stay for an answer.
    case peerClosed
    /// The peer closed it within a message; nil: within its header.
    case cutOff(RequestKind?, received: Int, of: Int)
    /// The rest of a message did not come in time.
    case stalled(RequestKind?, received: Int, of: Int)
    /// The peer does not read what it is sent.
    case peerDoesNotRead
    /// A message broke the protocol's form.
    case malformed(ProtocolError)
    /// A message was refused and the peer asked for no acknowledgement that would tell it so.
    case refused(RequestRefusal)
    /// The system failed.
    case system(SystemError)

    public var description: String {
        switch self {
        case .peerClosed: "the peer closed the connection"
        case .cutOff(let kind, let received, let size):
            "the peer closed the connection after \(received) of \(size) bytes of \(Self.name(kind))"
        case .stalled(let kind, let received, let size):
            "only \(received) of \(size) bytes of \(Self.name(kind)) came in time"
        case .peerDoesNotRead: "the peer does not read its replies"
        case .malformed(let error): "\(error)"
        case .refused(let refusal): "\(refusal)"
        case .system(let error): "\(error)"
        }
    }

    private static func name(_ kind: RequestKind?) -> String {
        kind.map(\.description) ?? "a header"
    }
}
