internal import Virtio

/// The back-end's side of a vhost-user session: pure, without I/O. A message goes in, steps come out.
///
/// `receive` takes a message and `resume` the device's answers, until a step says that the message is done:
///
/// 1. Every queue that runs otherwise than the message leaves it is stopped. Where it stops is where it goes on.
/// 2. The device is told of the change itself.
/// 3. The message takes effect, and every queue it concerns that can run now is started.
///
/// So there are no special cases: GET_VRING_BASE, SET_VRING_ENABLE 0 and REM_MEM_REG below a ring stop a queue because
/// it must not run any more; SET_VRING_NUM, _ADDR, _BASE and SET_FEATURES of a running queue, which the specification
/// leaves open and libvhost-user and DPDK put up with, stop it and start it again with what is new. A message that says
/// what is so already changes nothing: QEMU and SPDK repeat themselves.
///
/// - Invariant: a queue runs only with the setup that the state would give it now.
public struct Session: Hashable, Sendable {
    /// What GET_PROTOCOL_FEATURES answers.
    public static let offeredProtocolFeatures: ProtocolFeatures = [
        .mq, .replyAck, .configuration, .inflight, .resetDevice, .memorySlots,
    ]

    private var state: SessionState
    /// How the device serves each queue; nil: it does not.
    private var running: [QueueSetup?]
    /// The message in progress.
    private var exchange: Exchange?

    /// A session whose front-end has said nothing yet.
    public init(offer: DeviceOffer) {
        state = SessionState(offer: offer)
        running = [QueueSetup?](repeating: nil, count: offer.queueCount)
    }

    /// The protocol features that the front-end took.
    public var protocolFeatures: ProtocolFeatures { state.protocolFeatures }

    /// The memory that the front-end announced.
    public var memory: MemoryTable { state.memory }

    /// What a queue waits for; empty when it runs, or when the device refused to start it.
    public func missing(queue: Int) -> VringNeeds {
        state.missing(queue: queue)
    }

    /// How the device serves a queue; nil while it does not.
    public func setup(ofRunning queue: Int) -> QueueSetup? {
        running[queue]
    }

    /// Takes the next message. The one before must be done.
    ///
    /// - Parameter needsReply: the message asks for an acknowledgement. Ignored until REPLY_ACK is negotiated, and
    ///   where a message has a reply of its own: libblkio asks always.
    public mutating func receive(_ message: FrontendMessage, needsReply: Bool) -> SessionStep {
        precondition(exchange == nil, "a message before the last one was done")
        let acknowledges = needsReply && state.protocolFeatures.contains(.replyAck) && !message.kind.hasReply
        var exchange = Exchange(message: message, acknowledges: acknowledges)
        var after = state
        do throws(RequestRefusal) {
            try after.apply(message)
        } catch {
            return exchange.step(refusing: error)
        }
        exchange.stops = running.indices.reversed().filter {
            running[$0] != nil && running[$0] != after.setup(queue: $0)
        }
        exchange.change = change(for: message)
        self.exchange = exchange
        return advance()
    }

    /// Takes the device's answer to the call of the last step.
    public mutating func resume(_ answer: DeviceAnswer) -> SessionStep {
        guard var exchange, let call = exchange.call else { preconditionFailure("an answer without a call") }
        exchange.call = nil
        switch (call, answer) {
        case (_, .refused(let refusal)):
            exchange.refuse(refusal)
        case (.stopQueue(let queue), .stopped(let base)):
            running[queue] = nil
            state.vrings[queue].base = base
        case (.readConfiguration, .configuration(let bytes)):
            exchange.configuration = bytes
        case (.makeInflight, .inflight(let file)):
            exchange.inflightSize = file.size
        case (.stopQueue, _), (.readConfiguration, _), (.makeInflight, _), (_, .stopped), (_, .configuration),
            (_, .inflight):
            preconditionFailure("an answer to another call")
        case (.startQueue(let queue, let setup), .done):
            running[queue] = setup
        case (_, .done):
            break
        }
        self.exchange = exchange
        return advance()
    }

    /// The next step of the message in progress.
    private mutating func advance() -> SessionStep {
        guard var exchange else { preconditionFailure("no message in progress") }
        defer { self.exchange = exchange.isDone ? nil : exchange }
        if let queue = exchange.stops.popLast() { return exchange.step(calling: .stopQueue(queue)) }
        if let change = exchange.change {
            exchange.change = nil
            return exchange.step(calling: change)
        }
        if !exchange.tookEffect {
            exchange.tookEffect = true
            exchange.starts = queues(concernedBy: exchange.message)
            if exchange.refusal == nil { takeEffect(exchange.message) }
        }
        while let queue = exchange.starts.popLast() {
            if running[queue] == nil, let setup = state.setup(queue: queue) {
                return exchange.step(calling: .startQueue(queue, setup))
            }
        }
        exchange.isDone = true
        if let refusal = exchange.refusal { return exchange.step(refusing: refusal) }
        if exchange.message.kind.hasReply { return .reply(reply(to: exchange)) }
        return exchange.acknowledges ? .reply(.success) : .done
    }

    /// It was tried in `receive`; stopping queues has changed only where they go on, which no message is refused for.
    private mutating func takeEffect(_ message: FrontendMessage) {
        do throws(RequestRefusal) {
            try state.apply(message)
        } catch {
            preconditionFailure("a message that was accepted is refused: \(error)")
        }
    }

    /// What the device is told besides which queues run.
    private func change(for message: FrontendMessage) -> DeviceCall? {
        switch message {
        case .setMemoryTable(let regions): .replaceMemory(regions)
        case .addMemoryRegion(let region): .addMemory(region)
        case .removeMemoryRegion(let region): .removeMemory(region)
        case .getInflightFD(let wanted):
            .makeInflight(
                queueCount: Int(wanted.queueCount), queueSize: Int(wanted.queueSize), packed: state.isPacked)
        case .setInflightFD(let description): .setInflight(description)
        case .setVringKick(let file): .setKick(queue: Int(file.index))
        case .setVringCall(let file): .setCall(queue: Int(file.index))
        case .setVringError(let file): .setError(queue: Int(file.index))
        // The kick is forgotten: only a new one starts the queue again.
        case .getVringBase(let state): .setKick(queue: Int(state.index))
        case .getConfiguration(let access): access.isInside ? .readConfiguration : nil
        case .setConfiguration(let access): .writeConfiguration(access.bytes, offset: Int(access.offset))
        case .resetDevice: .resetKeepingMemory
        default: nil
        }
    }

    /// The queues that a message may bring to run, the last first.
    private func queues(concernedBy message: FrontendMessage) -> [Int] {
        switch message {
        case .setFeatures, .setMemoryTable, .addMemoryRegion, .removeMemoryRegion, .resetDevice:
            running.indices.reversed()
        case .setVringSize(let state), .setVringBase(let state), .setVringEnable(let state): [Int(state.index)]
        case .setVringAddress(let address): [Int(address.index)]
        case .setVringKick(let file): [Int(file.index)]
        default: []
        }
    }

    private func reply(to exchange: Exchange) -> BackendReply {
        switch exchange.message {
        case .getFeatures: return .value(state.offeredFeatures)
        case .getProtocolFeatures: return .value(Self.offeredProtocolFeatures.rawValue)
        case .getQueueCount: return .value(UInt64(state.offer.queueCount))
        case .getMaximumMemorySlots: return .value(UInt64(state.offer.maximumMemoryRegions))
        case .getVringBase(let vring):
            return .vringState(
                VringState(index: vring.index, value: state.vrings[Int(vring.index)].base ?? state.freshBase))
        case .getConfiguration(let access):
            guard let configuration = exchange.configuration else { return .empty }
            return .configuration(access.reading(configuration))
        case .getInflightFD(let wanted):
            var made = wanted
            made.size = exchange.inflightSize
            made.fileOffset = 0
            return .inflight(made)
        default:
            preconditionFailure("\(exchange.message.kind) has no reply of its own")
        }
    }
}

/// A message in progress.
private struct Exchange: Hashable, Sendable {
    let message: FrontendMessage
    /// The peer waits for an acknowledgement.
    let acknowledges: Bool
    /// Queues to stop, to be told of, to start: the last first.
    var stops: [Int] = []
    var change: DeviceCall?
    var starts: [Int] = []
    var tookEffect = false
    var isDone = false
    /// The call whose answer is awaited.
    var call: DeviceCall?
    var configuration: [UInt8]?
    /// Of the log that the device has made.
    var inflightSize: UInt64 = 0
    /// The first refusal.
    var refusal: RequestRefusal?

    init(message: FrontendMessage, acknowledges: Bool) {
        self.message = message
        self.acknowledges = acknowledges
    }

    mutating func step(calling call: DeviceCall) -> SessionStep {
        self.call = call
        return .call(call)
    }

    func step(refusing refusal: RequestRefusal) -> SessionStep {
        acknowledges ? .refuse(refusal) : .close(refusal)
    }

    /// The device refused: what is left of the message is dropped. Queues that were stopped for it are started again as
    /// they were; of several queues that start, one that is refused does not keep the others from it.
    mutating func refuse(_ refusal: DeviceRefusal) {
        if self.refusal == nil { self.refusal = RequestRefusal(message.kind, .device(refusal.description)) }
        stops = []
        change = nil
    }
}

extension ConfigurationAccess {
    /// True for a part of the 256 bytes that a configuration space can have. The device may have fewer.
    var isInside: Bool {
        !bytes.isEmpty && bytes.count <= Self.maximumSize && offset <= UInt32(Self.maximumSize - bytes.count)
    }

    /// The answer: as many bytes as were asked for, 0 where the device has none. SPDK's initiator always asks for 256
    /// and fails if it gets fewer.
    fileprivate func reading(_ configuration: [UInt8]) -> ConfigurationAccess {
        var answer = self
        for index in bytes.indices {
            let place = Int(offset) + index
            answer.bytes[index] = place < configuration.count ? configuration[place] : 0
        }
        return answer
    }
}
