/// A message that breaks the protocol's form. The connection that brought it cannot go on.
public struct ProtocolError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The message, as its header names it.
    public var kind: RequestKind
    /// What is wrong with it.
    public var reason: Reason

    public init(_ kind: RequestKind, _ reason: Reason) {
        self.kind = kind
        self.reason = reason
    }

    public enum Reason: Hashable, Sendable {
        /// The header names this version of the protocol; there is only 1.
        case unsupportedVersion(UInt32)
        /// The header announces more bytes than any message has.
        case payloadTooLong(UInt32)
        /// The payload has the wrong length.
        case wrongPayloadSize(Int, expected: Int)
        /// More or fewer file descriptors came than the message takes.
        case wrongFDCount(Int, expected: ClosedRange<Int>)
        /// File descriptors came with a byte that is not a message's first.
        case misplacedFDs
        /// The kernel could not deliver all file descriptors.
        case lostFDs
        /// A memory table of this many regions.
        case wrongRegionCount(UInt32)
        /// An access to this many bytes of the configuration space.
        case configurationTooLong(UInt32)
        /// Bits are set that the specification reserves.
        case reservedBits(UInt64)
        /// A request that carries the flag of replies.
        case replyInsteadOfRequest
        /// A reply without the flag of replies.
        case requestInsteadOfReply
        /// A reply to another message than the one that was sent.
        case wrongReply(to: RequestKind)
    }

    /// One sentence without a full stop: which message, what is wrong, what it should have been.
    public var description: String {
        "\(kind): \(reason)"
    }
}

extension ProtocolError.Reason: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unsupportedVersion(let version):
            "the header names version \(version) of the protocol, not 1"
        case .payloadTooLong(let size):
            "the header announces \(size) bytes of payload, more than \(MessageHeader.maximumPayloadSize)"
        case .wrongPayloadSize(let size, let expected):
            "\(size) bytes of payload instead of \(expected)"
        case .wrongFDCount(let count, let expected) where expected.count == 1:
            "\(count) file descriptors instead of \(expected.lowerBound)"
        case .wrongFDCount(let count, let expected):
            "\(count) file descriptors instead of \(expected.lowerBound) to \(expected.upperBound)"
        case .misplacedFDs:
            "file descriptors came in the middle of the message"
        case .lostFDs:
            "file descriptors were lost: too many were sent, or this process may not open more"
        case .wrongRegionCount(let count):
            "a table of \(count) memory regions instead of 1 to \(FrontendMessage.maximumTableRegions)"
        case .configurationTooLong(let size):
            "an access to \(size) bytes of configuration, more than \(ConfigurationAccess.maximumSize)"
        case .reservedBits(let bits):
            "reserved bits are set: \(hexadecimal(bits))"
        case .replyInsteadOfRequest:
            "the reply flag is set in a request"
        case .requestInsteadOfReply:
            "the reply flag is missing in a reply"
        case .wrongReply(let kind):
            "a reply to \(kind) was due"
        }
    }
}
