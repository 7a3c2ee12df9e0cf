public import Platform
public import VhostUser

/// Why a session with a back-end cannot go on.
public struct FrontendError: Error, CustomStringConvertible, Sendable {
    /// What happened.
    public enum Reason: Sendable {
        /// The back-end cannot be reached.
        case unreachable(SystemError)
        /// The socket failed.
        case socket(Errno)
        /// The back-end closed the connection.
        case closed
        /// The back-end did not answer within this many milliseconds.
        case noAnswer(milliseconds: Int32)
        /// The back-end answered with something that is no answer.
        case malformed(ProtocolError)
        /// The back-end acknowledged the message with this number instead of 0.
        case refused(UInt64)
        /// The back-end answered with something that it must not say.
        case wrongAnswer(String)
        /// The back-end lacks something that is needed.
        case missing(String)
    }

    /// The message during which it happened; nil before the first.
    public var message: RequestKind?
    public var reason: Reason

    init(_ message: RequestKind? = nil, _ reason: Reason) {
        self.message = message
        self.reason = reason
    }

    public var description: String {
        let cause =
            switch reason {
            case .unreachable(let error): "\(error)"
            case .socket(let errno): "the socket failed: \(errno)"
            case .closed: "the back-end closed the connection"
            case .noAnswer(let milliseconds): "the back-end did not answer within \(milliseconds) ms"
            case .malformed(let error): "the back-end answered out of form: \(error)"
            case .refused(let code): "the back-end refused it (\(code))"
            case .wrongAnswer(let sentence): sentence
            case .missing(let what): "the back-end does not offer \(what)"
            }
        return message.map { "\($0): \(cause)" } ?? cause
    }
}
