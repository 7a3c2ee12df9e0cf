internal import CWire

/// What a back-end answers, decoded. A file descriptor travels beside it where there is one.
public enum BackendReply: Hashable, Sendable {
    /// A number: what a GET asked for or, as an acknowledgement, 0 for success.
    case value(UInt64)
    /// Where a vring goes on (GET_VRING_BASE).
    case vringState(VringState)
    /// A part of the configuration space (GET_CONFIG).
    case configuration(ConfigurationAccess)
    /// The log of requests in flight (GET_INFLIGHT_FD).
    case inflight(InflightDescription)
    /// A reply without payload: the configuration space has no such part (GET_CONFIG).
    case empty

    /// REPLY_ACK: the request was carried out.
    public static let success = BackendReply.value(0)
    /// REPLY_ACK: the request was refused.
    public static let failure = BackendReply.value(1)

    /// The reply's bytes: header and payload.
    public func encode(to kind: RequestKind) -> [UInt8] {
        var payload: [UInt8] = []
        switch self {
        case .value(let word): payload.append(structure: word)
        case .vringState(let state): payload.append(structure: state.wire)
        case .configuration(let access): access.append(to: &payload)
        case .inflight(let inflight): payload.append(structure: inflight.wire)
        case .empty: break
        }
        return MessageHeader.message(kind, .reply, payload)
    }

    /// Reads the reply to a request.
    ///
    /// - Parameter kind: the request that is answered; it has a reply of its own or asked for an acknowledgement.
    /// - Parameter payload: the bytes after the header, all of them, in memory that no peer can write to.
    /// - Parameter fdCount: how many file descriptors came with the reply.
    public init(
        decoding header: MessageHeader, payload: Span<UInt8>, fdCount: Int, to kind: RequestKind
    ) throws(ProtocolError) {
        precondition(payload.count == header.payloadSize, "the payload is what the header announced")
        guard header.kind == kind else { throw ProtocolError(header.kind, .wrongReply(to: kind)) }
        guard header.flags.contains(.reply) else { throw ProtocolError(kind, .requestInsteadOfReply) }
        let decoder = PayloadDecoder(kind: kind, payload: payload)
        self =
            switch kind {
            case .getVringBase, .getVringBaseWithoutDraining: .vringState(try decoder.vringState())
            case .getConfiguration where payload.count == 0: .empty
            case .getConfiguration: .configuration(try decoder.configuration())
            case .getInflightFD: .inflight(try decoder.inflight())
            default: .value(try decoder.word())
            }
        guard fdCount == self.fdCount else {
            throw ProtocolError(kind, .wrongFDCount(fdCount, expected: self.fdCount...self.fdCount))
        }
    }

    /// How many file descriptors come with the reply. A log of size 0 is a refusal: there is no file.
    public var fdCount: Int {
        if case .inflight(let inflight) = self, inflight.size > 0 { 1 } else { 0 }
    }
}

extension RequestKind {
    /// True when the request is answered by a message of its own, so that it never gets an acknowledgement besides.
    public var hasReply: Bool {
        Self.answered.contains(self)
    }

    // SET_LOG_BASE is among them: with the log in a file it is always answered.
    private static let answered: Set<RequestKind> = [
        .getFeatures, .setLogBase, .getVringBase, .getProtocolFeatures, .getQueueCount, .iotlbMessage,
        .getConfiguration, .createCryptoSession, .postcopyAdvise, .postcopyEnd, .getInflightFD, .getMaximumMemorySlots,
        .getStatus, .getSharedObject, .setDeviceStateFD, .checkDeviceState, .getSharedMemoryConfiguration,
        .getVringBaseWithoutDraining,
    ]
}
