public import Platform
public import VhostUser

/// The front-end of a vhost-user session: connects to a back-end, agrees with it, gives it memory and queues, stops it.
///
/// Every wait has a limit (`FrontendTimeouts`) and every failure is a `FrontendError` with a sentence. Queues are
/// driven elsewhere, by `DriverQueue`: letting go of the front-end closes the connection and leaves memory and rings
/// alone.
public struct Frontend: ~Copyable {
    /// Virtio features that the back-end offered and that were taken, bit 30 included.
    public private(set) var features: UInt64 = 0
    /// Protocol features that the back-end offered.
    public private(set) var offeredProtocolFeatures: ProtocolFeatures = []
    /// Protocol features that were taken.
    public private(set) var protocolFeatures: ProtocolFeatures = []
    /// How many vrings the back-end has, where it said so (MQ); else 1.
    public private(set) var queueCount = 1
    /// The memory regions it takes at once, where it said so (CONFIGURE_MEM_SLOTS).
    public private(set) var maximumMemorySlots: Int?

    private let path: String
    private let behaviour: FrontendBehaviour
    private let timeouts: FrontendTimeouts
    private var channel: FrontendChannel
    private var memory: GuestMemory?
    private(set) var endpoints: [QueueEndpoint] = []
    /// The inflight region, kept over reconnects.
    private var inflight: InflightDescription?
    private var inflightFile: OwnedFD?

    /// Connects and agrees on features.
    ///
    /// - Parameter path: of the back-end's socket, which may still be about to appear.
    public static func connect(
        to path: String, behaviour: FrontendBehaviour = .qemu, timeouts: FrontendTimeouts = FrontendTimeouts()
    ) throws(FrontendError) -> Frontend {
        let channel = try FrontendChannel(connectingTo: path, milliseconds: timeouts.connect)
        var frontend = Frontend(channel, path: path, behaviour: behaviour, timeouts: timeouts)
        try frontend.negotiate()
        return frontend
    }

    private init(
        _ channel: consuming FrontendChannel, path: String, behaviour: FrontendBehaviour, timeouts: FrontendTimeouts
    ) {
        self.channel = channel
        self.path = path
        self.behaviour = behaviour
        self.timeouts = timeouts
    }

    /// The process that listens; nil where it cannot be known.
    public var backendProcess: Int32? { channel.stream.peerProcess }

    /// The file of the inflight region, or -1.
    public var inflightFileNumber: Int32 {
        switch inflightFile {
        case .some(let file): file.number
        case .none: -1
        }
    }

    /// Whether EVENT_IDX was agreed on, as `DriverQueue` wants to know.
    public var usesEventIndex: Bool { features & VirtioFeatures.eventIndex != 0 }

    /// Whether packed rings were agreed on, as `QueueEndpoint` wants to know.
    public var usesPackedRings: Bool { features & VirtioFeatures.packedRing != 0 }

    // MARK: Configuration

    /// Reads the configuration space (GET_CONFIG).
    ///
    /// - Returns: as many bytes as the behaviour asks for, from offset 0.
    public borrowing func readConfiguration() throws(FrontendError) -> [UInt8] {
        let count = behaviour.configurationSize
        let access = ConfigurationAccess(offset: 0, bytes: [UInt8](repeating: 0, count: count))
        let reply = try ask(.getConfiguration(access))
        guard case .configuration(let answer) = reply, answer.offset == 0, answer.bytes.count == count else {
            throw FrontendError(.getConfiguration, .wrongAnswer("\(count) bytes of configuration were asked for"))
        }
        return answer.bytes
    }

    /// Reads the configuration of a block device.
    public borrowing func readBlockConfiguration() throws(FrontendError) -> BlockConfiguration {
        BlockConfiguration(try readConfiguration())
    }

    // MARK: Starting and stopping

    /// Gives the back-end its memory and queues and lets it run.
    ///
    /// - Parameter endpoints: queue 0 and up, at most `queueCount`.
    /// - Parameter bases: where each ring goes on; nil: at the beginning, a packed one where its last driver left it.
    /// - Parameter beforeQueues: called when the back-end has its memory and knows of no queue yet.
    public mutating func start(
        _ memory: GuestMemory, _ endpoints: [QueueEndpoint], bases: [UInt32]? = nil,
        beforeQueues: (() -> Void)? = nil
    ) throws(FrontendError) {
        precondition(endpoints.count <= queueCount, "the back-end has \(queueCount) queues")
        let bases = bases ?? endpoints.map { $0.isPacked ? $0.packedBase : 0 }
        precondition(bases.count == endpoints.count, "each queue has a base")
        precondition(endpoints.allSatisfy { $0.isPacked == usesPackedRings }, "these are not the rings agreed on")
        self.memory = memory
        self.endpoints = endpoints
        try shareInflight()
        if behaviour.enabling == .first { try enableAll() }
        try tell(.setFeatures(features))
        try shareMemory(memory)
        beforeQueues?()
        for (index, endpoint) in endpoints.enumerated() {
            try setUp(endpoint, queue: index, base: bases[index])
            if behaviour.enabling == .eachQueue { try setEnabled(true, queue: index) }
        }
        if behaviour.enabling == .last { try enableAll() }
    }

    /// Stops every queue (GET_VRING_BASE); the back-end finishes what it has taken.
    ///
    /// - Returns: for each queue where it would go on.
    @discardableResult
    public mutating func stop() throws(FrontendError) -> [UInt32] {
        var bases: [UInt32] = []
        for index in endpoints.indices {
            let reply = try ask(.getVringBase(VringState(index: UInt32(index), value: 0)), within: timeouts.drain)
            guard case .vringState(let state) = reply, state.index == UInt32(index),
                usesPackedRings || state.value <= 0xffff
            else {
                throw FrontendError(.getVringBase, .wrongAnswer("the answer is not about queue \(index): \(reply)"))
            }
            bases.append(state.value)
        }
        endpoints = []
        return bases
    }

    /// Connects again after the back-end was lost, as QEMU does: same memory, same rings, the same inflight region.
    ///
    /// The back-end is told to go on at used.idx (of a packed ring, which does not show it, something that its inflight
    /// region knows better), and kicked: it may have missed kicks while it was away. What it
    /// offers must not be less than before.
    ///
    /// - Parameter beforeQueues: called when the back-end has mapped everything and knows of no queue yet.
    public mutating func reconnect(beforeQueues: (() -> Void)? = nil) throws(FrontendError) {
        guard let memory else { preconditionFailure("nothing was started that could be taken up again") }
        let agreed = (features, protocolFeatures)
        channel = try FrontendChannel(connectingTo: path, milliseconds: timeouts.connect)
        try negotiate()
        guard (features, protocolFeatures) == agreed else {
            throw FrontendError(nil, .missing("the features of the session that was lost"))
        }
        try start(
            memory, endpoints, bases: endpoints.map { $0.isPacked ? $0.packedBase : UInt32($0.usedIndex) },
            beforeQueues: beforeQueues)
        for endpoint in endpoints { endpoint.kick.signal() }
    }

    /// Enables or disables one queue (SET_VRING_ENABLE); without bit 30 there is no such thing.
    public borrowing func setEnabled(_ enabled: Bool, queue: Int) throws(FrontendError) {
        guard features & VhostFeatures.protocolFeatures != 0 else { return }
        try tell(.setVringEnable(VringState(index: UInt32(queue), value: enabled ? 1 : 0)))
    }

    /// Takes a region away from the back-end (REM_MEM_REG), which must not use it any more.
    public borrowing func remove(_ region: GuestRegion) throws(FrontendError) {
        // libblkio sends the file again, against the specification.
        let fds = behaviour.acknowledgement == .everything ? [region.file.number] : []
        try tell(.removeMemoryRegion(region.description), fds: fds, changesMemory: true)
    }

    /// The inflight region, mapped: what a back-end that has died has left there. Nil before `start`, and where there
    /// is none.
    public borrowing func mapInflight() throws(Errno) -> InflightMapping? {
        guard let inflight else { return nil }
        switch inflightFile {
        case .some(let file): return try InflightMapping(inflight, file: file)
        case .none: return nil
        }
    }

    // MARK: Any message

    /// Sends a message and waits for its answer or, where the behaviour asks for one, its acknowledgement.
    ///
    /// - Parameter fds: stay open here.
    public borrowing func tell(
        _ message: FrontendMessage, fds: [Int32] = [], changesMemory: Bool = false
    ) throws(FrontendError) {
        guard wantsAcknowledgement(changesMemory) else {
            return try channel.send(message, flags: [], fds: fds)
        }
        try channel.send(message, flags: .needReply, fds: fds)
        let received = try channel.receive(answerTo: message.kind, milliseconds: timeouts.reply)
        guard case .value(let code) = received.reply else {
            throw FrontendError(message.kind, .wrongAnswer("\(received.reply) is no acknowledgement"))
        }
        guard code == 0 else { throw FrontendError(message.kind, .refused(code)) }
    }

    /// Sends a message that has an answer of its own and waits for it.
    ///
    /// - Parameter milliseconds: nil for the usual limit.
    public borrowing func ask(
        _ message: FrontendMessage, fds: [Int32] = [], within milliseconds: Int32? = nil
    ) throws(FrontendError) -> BackendReply {
        let flags: MessageFlags = wantsAcknowledgement(false) ? .needReply : []
        try channel.send(message, flags: flags, fds: fds)
        return try channel.receive(answerTo: message.kind, milliseconds: milliseconds ?? timeouts.reply).reply
    }

    /// Sends bytes as they are, for messages that no front-end should send.
    public borrowing func send(_ bytes: [UInt8], fds: [Int32] = []) throws(FrontendError) {
        try channel.send(bytes, kind: RequestKind(rawValue: 0), fds: fds)
    }

    /// Whether the back-end closes the connection within a time.
    public borrowing func isClosedByBackend(within milliseconds: Int32) -> Bool {
        channel.reachesEnd(within: milliseconds)
    }

    private borrowing func wantsAcknowledgement(_ changesMemory: Bool) -> Bool {
        guard protocolFeatures.contains(.replyAck) else { return false }
        return switch behaviour.acknowledgement {
        case .never: false
        case .memory: changesMemory
        case .everything: true
        }
    }

    private borrowing func number(_ message: FrontendMessage) throws(FrontendError) -> UInt64 {
        let reply = try ask(message)
        guard case .value(let number) = reply else {
            throw FrontendError(message.kind, .wrongAnswer("\(reply) is no number"))
        }
        return number
    }

    // MARK: Steps

    private mutating func negotiate() throws(FrontendError) {
        protocolFeatures = []
        try tell(.setOwner)
        let offered = try number(.getFeatures)
        features = offered & (behaviour.features | VhostFeatures.protocolFeatures)
        guard features & VirtioFeatures.version1 != 0 else {
            throw FrontendError(.getFeatures, .missing("VIRTIO_F_VERSION_1, without which nothing works here"))
        }
        if features & VhostFeatures.protocolFeatures != 0 {
            offeredProtocolFeatures = ProtocolFeatures(rawValue: try number(.getProtocolFeatures))
            let wanted = offeredProtocolFeatures.intersection(behaviour.protocolFeatures)
            try tell(.setProtocolFeatures(wanted))
            protocolFeatures = wanted
        }
        if behaviour.memoryMessages == .slots, !protocolFeatures.contains(.memorySlots) {
            throw FrontendError(.getProtocolFeatures, .missing("CONFIGURE_MEM_SLOTS"))
        }
        try tell(.setFeatures(features))
        if protocolFeatures.contains(.mq) {
            // More rings than a message can name are more than anybody can use.
            queueCount = Int(clamping: min(try number(.getQueueCount), 256))
        }
        if protocolFeatures.contains(.memorySlots) {
            maximumMemorySlots = Int(clamping: try number(.getMaximumMemorySlots))
        }
    }

    private mutating func shareInflight() throws(FrontendError) {
        guard behaviour.usesInflight, protocolFeatures.contains(.inflight) else { return }
        if inflightFile == nil {
            let size = endpoints.map(\.ring.size).max() ?? 1
            let wanted = InflightDescription(
                size: 0, fileOffset: 0, queueCount: UInt16(endpoints.count), queueSize: UInt16(size))
            try channel.send(.getInflightFD(wanted), flags: [], fds: [])
            var received = try channel.receive(answerTo: .getInflightFD, milliseconds: timeouts.reply)
            guard case .inflight(let description) = received.reply, let fd = received.fd.take() else {
                throw FrontendError(.getInflightFD, .wrongAnswer("the back-end made no inflight region"))
            }
            inflight = description
            inflightFile = consume fd
        }
        if let inflight, let number = inflightFile?.number { try tell(.setInflightFD(inflight), fds: [number]) }
    }

    private borrowing func shareMemory(_ memory: GuestMemory) throws(FrontendError) {
        let regions = memory.regions
        switch behaviour.memoryMessages {
        case .table(let times):
            for _ in 0..<times {
                try tell(
                    .setMemoryTable(regions.map(\.description)), fds: regions.map { $0.file.number },
                    changesMemory: true)
            }
        case .slots:
            for region in regions {
                try tell(.addMemoryRegion(region.description), fds: [region.file.number], changesMemory: true)
            }
        }
    }

    private borrowing func setUp(_ endpoint: QueueEndpoint, queue: Int, base: UInt32) throws(FrontendError) {
        let ring = endpoint.ring
        let index = UInt32(queue)
        let file = VringFile(index: UInt8(queue), hasFD: true)
        try tell(.setVringSize(VringState(index: index, value: UInt32(ring.size))))
        try tell(.setVringBase(VringState(index: index, value: base)))
        try tell(.setVringAddress(Self.address(of: endpoint, queue: queue)))
        try tell(.setVringError(file), fds: [endpoint.error.fd.number])
        try tell(.setVringKick(file), fds: [endpoint.kick.fd.number])
        try tell(.setVringCall(file), fds: [endpoint.call.fd.number])
    }

    static func address(of endpoint: QueueEndpoint, queue: Int) -> VringAddress {
        let (memory, ring) = (endpoint.memory, endpoint.ring)
        return VringAddress(
            index: UInt32(queue), descriptorTable: memory.frontendAddress(of: ring.descriptorTable),
            usedRing: memory.frontendAddress(of: ring.usedRing),
            availableRing: memory.frontendAddress(of: ring.availableRing))
    }

    private borrowing func enableAll() throws(FrontendError) {
        for index in endpoints.indices { try setEnabled(true, queue: index) }
    }
}
