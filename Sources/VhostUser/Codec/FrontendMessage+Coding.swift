internal import CWire
internal import Virtio

extension FrontendMessage {
    /// The message's bytes: header and payload.
    public func encode(flags: MessageFlags = []) -> [UInt8] {
        MessageHeader.message(kind, flags, encodePayload())
    }

    private func encodePayload() -> [UInt8] {
        var bytes: [UInt8] = []
        switch self {
        case .getFeatures, .setOwner, .resetOwner, .setLogEventFD, .getProtocolFeatures, .getQueueCount,
            .setBackendRequestFD, .resetDevice, .getMaximumMemorySlots, .getStatus:
            break
        case .setFeatures(let word), .setStatus(let word):
            bytes.append(structure: word)
        case .setProtocolFeatures(let features):
            bytes.append(structure: features.rawValue)
        case .setVringSize(let state), .setVringBase(let state), .getVringBase(let state), .setVringEnable(let state),
            .getVringBaseWithoutDraining(let state):
            bytes.append(structure: state.wire)
        case .setVringAddress(let address):
            bytes.append(structure: address.wire)
        case .setVringKick(let file), .setVringCall(let file), .setVringError(let file):
            bytes.append(structure: file.wire)
        case .setMemoryTable(let regions):
            bytes.append(structure: wire_vhost_user_mem_table_header(nregions: UInt32(regions.count), padding: 0))
            for region in regions { bytes.append(structure: region.wire) }
        case .addMemoryRegion(let region), .removeMemoryRegion(let region):
            bytes.append(structure: wire_vhost_user_single_mem_region(padding: 0, region: region.wire))
        case .getConfiguration(let access), .setConfiguration(let access):
            access.append(to: &bytes)
        case .getInflightFD(let inflight), .setInflightFD(let inflight):
            bytes.append(structure: inflight.wire)
        case .setLogBase(let log):
            bytes.append(structure: log.wire)
        case .other(_, let payload):
            bytes = payload
        }
        return bytes
    }

    /// Reads a request.
    ///
    /// - Parameter payload: the bytes after the header, all of them, in memory that no peer can write to.
    /// - Parameter fdCount: how many file descriptors came with the message.
    /// - Throws: everything that is wrong with the message's form. What its numbers mean is the session's to judge.
    public init(decoding header: MessageHeader, payload: Span<UInt8>, fdCount: Int) throws(ProtocolError) {
        precondition(payload.count == header.payloadSize, "the payload is what the header announced")
        guard !header.flags.contains(.reply) else { throw ProtocolError(header.kind, .replyInsteadOfRequest) }
        self = try Self.decode(PayloadDecoder(kind: header.kind, payload: payload))
        guard self.fdCount.contains(fdCount) else {
            throw ProtocolError(header.kind, .wrongFDCount(fdCount, expected: self.fdCount))
        }
    }

    private static func decode(_ payload: PayloadDecoder) throws(ProtocolError) -> FrontendMessage {
        switch payload.kind {
        case .getFeatures: try payload.nothing(.getFeatures)
        case .setFeatures: .setFeatures(try payload.word())
        case .setOwner: try payload.nothing(.setOwner)
        case .resetOwner: try payload.nothing(.resetOwner)
        case .setMemoryTable: .setMemoryTable(try payload.memoryTable())
        case .setLogBase: .setLogBase(LogDescription(try payload.structure(wire_vhost_user_log.self)))
        case .setLogEventFD: try payload.nothing(.setLogEventFD)
        case .setVringSize: .setVringSize(try payload.vringState())
        case .setVringAddress: .setVringAddress(VringAddress(try payload.structure(wire_vhost_vring_addr.self)))
        case .setVringBase: .setVringBase(try payload.vringState())
        case .getVringBase: .getVringBase(try payload.vringState())
        case .setVringKick: .setVringKick(try payload.vringFile())
        case .setVringCall: .setVringCall(try payload.vringFile())
        case .setVringError: .setVringError(try payload.vringFile())
        case .getProtocolFeatures: try payload.nothing(.getProtocolFeatures)
        case .setProtocolFeatures: .setProtocolFeatures(ProtocolFeatures(rawValue: try payload.word()))
        case .getQueueCount: try payload.nothing(.getQueueCount)
        case .setVringEnable: .setVringEnable(try payload.vringState())
        case .setBackendRequestFD: try payload.nothing(.setBackendRequestFD)
        case .getConfiguration: .getConfiguration(try payload.configuration())
        case .setConfiguration: .setConfiguration(try payload.configuration())
        case .getInflightFD: .getInflightFD(try payload.inflight())
        case .setInflightFD: .setInflightFD(try payload.inflight())
        case .resetDevice: try payload.nothing(.resetDevice)
        case .getMaximumMemorySlots: try payload.nothing(.getMaximumMemorySlots)
        case .addMemoryRegion: .addMemoryRegion(try payload.memoryRegion())
        case .removeMemoryRegion: .removeMemoryRegion(try payload.memoryRegion())
        case .setStatus: .setStatus(try payload.word())
        case .getStatus: try payload.nothing(.getStatus)
        case .getVringBaseWithoutDraining: .getVringBaseWithoutDraining(try payload.vringState())
        default: .other(payload.kind, payload: payload.payload.array(from: 0))
        }
    }
}

/// Reads payloads whose length is fixed by the message or by a count within.
struct PayloadDecoder: ~Escapable {
    let kind: RequestKind
    let payload: Span<UInt8>

    @_lifetime(copy payload)
    init(kind: RequestKind, payload: Span<UInt8>) {
        self.kind = kind
        self.payload = payload
    }

    func expect(size: Int) throws(ProtocolError) {
        guard payload.count == size else {
            throw ProtocolError(kind, .wrongPayloadSize(payload.count, expected: size))
        }
    }

    func nothing(_ message: FrontendMessage) throws(ProtocolError) -> FrontendMessage {
        try expect(size: 0)
        return message
    }

    func structure<Wire: WireStructure & BitwiseCopyable>(_ type: Wire.Type) throws(ProtocolError) -> Wire {
        try expect(size: wireSize(Wire.self))
        return payload.load(Wire.self)
    }

    func word() throws(ProtocolError) -> UInt64 {
        try structure(UInt64.self)
    }

    func vringState() throws(ProtocolError) -> VringState {
        VringState(try structure(wire_vhost_vring_state.self))
    }

    func vringFile() throws(ProtocolError) -> VringFile {
        try VringFile(kind, try word())
    }

    func inflight() throws(ProtocolError) -> InflightDescription {
        InflightDescription(try structure(wire_vhost_user_inflight.self))
    }

    func configuration() throws(ProtocolError) -> ConfigurationAccess {
        try ConfigurationAccess(kind, decoding: payload)
    }

    func memoryRegion() throws(ProtocolError) -> MemoryRegion {
        MemoryRegion(try structure(wire_vhost_user_single_mem_region.self).region)
    }

    func memoryTable() throws(ProtocolError) -> [MemoryRegion] {
        let headerSize = wireSize(wire_vhost_user_mem_table_header.self)
        let regionSize = wireSize(wire_vhost_user_mem_region.self)
        guard payload.count >= headerSize else {
            throw ProtocolError(kind, .wrongPayloadSize(payload.count, expected: headerSize))
        }
        let count = payload.load(wire_vhost_user_mem_table_header.self).nregions
        guard count >= 1, count <= UInt32(FrontendMessage.maximumTableRegions) else {
            throw ProtocolError(kind, .wrongRegionCount(count))
        }
        try expect(size: headerSize + Int(count) * regionSize)
        var regions: [MemoryRegion] = []
        for index in 0..<Int(count) {
            let wire = payload.load(wire_vhost_user_mem_region.self, at: headerSize + index * regionSize)
            regions.append(MemoryRegion(wire))
        }
        return regions
    }
}
