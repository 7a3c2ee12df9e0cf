public import Platform
public import Virtio

/// What a session asks of its device, as a value: the calls of `VhostUserDevice`.
public enum DeviceCall: Hashable, Sendable {
    case readConfiguration
    case writeConfiguration([UInt8], offset: Int)
    /// With all descriptors of the message.
    case replaceMemory([MemoryRegion])
    /// With the descriptor of the message.
    case addMemory(MemoryRegion)
    case removeMemory(MemoryRegion)
    case makeInflight(queueCount: Int, queueSize: Int, packed: Bool)
    /// With the descriptor of the message.
    case setInflight(InflightDescription)
    /// With the descriptor of the message, or nil if it has none.
    case setKick(queue: Int)
    /// With the descriptor of the message, or nil if it has none.
    case setCall(queue: Int)
    /// With the descriptor of the message, or nil if it has none.
    case setError(queue: Int)
    /// With the descriptor of the message.
    case setDirtyLog(LogDescription)
    /// With the descriptor of the message.
    case setLogEvent
    case setLogging(queue: Int, QueueLogging)
    /// With the descriptor of the message.
    case setBackendChannel(acknowledged: Bool)
    case startQueue(Int, QueueSetup)
    case stopQueue(Int)
    case parkQueue(Int)
    case resetKeepingMemory
}

extension DeviceCall {
    /// Makes the call.
    ///
    /// - Parameter fds: what came with the message, as many as the codec asks of it; the call takes its own out.
    public func perform(on device: some VhostUserDevice, fds: inout ReceivedFDs) -> DeviceAnswer {
        do throws(DeviceRefusal) {
            switch self {
            case .readConfiguration: return .configuration(device.configuration)
            case .writeConfiguration(let bytes, let offset): try device.writeConfiguration(bytes, at: offset)
            case .replaceMemory(let regions):
                var all = ReceivedFDs()
                swap(&all, &fds)
                try device.replaceMemory(regions, fds: all)
            case .addMemory(let region):
                try device.addMemory(region, fd: Self.only(&fds))
            case .removeMemory(let region): try device.removeMemory(region)
            case .makeInflight(let queueCount, let queueSize, let packed):
                return .inflight(try device.makeInflight(queueCount: queueCount, queueSize: queueSize, packed: packed))
            case .setInflight(let description):
                try device.setInflight(description, fd: Self.only(&fds))
            case .setKick(let queue): try device.setKick(fds.takeFirst(), queue: queue)
            case .setCall(let queue): try device.setCall(fds.takeFirst(), queue: queue)
            case .setError(let queue): try device.setError(fds.takeFirst(), queue: queue)
            case .startQueue(let queue, let setup): try device.startQueue(queue, setup)
            case .stopQueue(let queue): return .stopped(base: try device.stopQueue(queue))
            case .parkQueue(let queue): return .stopped(base: try device.parkQueue(queue))
            case .setDirtyLog(let log): try device.setDirtyLog(log, fd: Self.only(&fds))
            case .setLogEvent: try device.setLogEvent(Self.only(&fds))
            case .setLogging(let queue, let logging): try device.setLogging(logging, queue: queue)
            case .setBackendChannel(let acknowledged):
                try device.setBackendChannel(Self.only(&fds), acknowledged: acknowledged)
            case .resetKeepingMemory: device.reset(keepingMemory: true)
            }
            return .done
        } catch {
            return .refused(error)
        }
    }

    /// The descriptor of a message that has exactly one.
    private static func only(_ fds: inout ReceivedFDs) -> OwnedFD {
        guard let fd = fds.takeFirst() else { preconditionFailure("the codec lets no such message in without it") }
        return fd
    }
}

/// What the device answered.
public enum DeviceAnswer: Sendable {
    /// Done; the call has no result.
    case done
    /// `readConfiguration`: the whole configuration space.
    case configuration([UInt8])
    /// `stopQueue` and `parkQueue`: where the queue would go on.
    case stopped(base: UInt32)
    /// `makeInflight`: the file, to be sent with the reply.
    case inflight(InflightFile)
    /// Not done.
    case refused(DeviceRefusal)
}

/// What to do next for a message.
public enum SessionStep: Hashable, Sendable {
    /// Call the device, then give its answer to `Session.resume`.
    case call(DeviceCall)
    /// Send this; the message is done.
    case reply(BackendReply)
    /// The message is done and nobody waits for an answer.
    case done
    /// Send a negative acknowledgement; the message is done and the session goes on.
    case refuse(RequestRefusal)
    /// Close the connection: the message was refused and the protocol has no other way to say so.
    case close(RequestRefusal)
}

/// What a device can do, as a session negotiates it. It does not change while the session lasts.
public struct DeviceOffer: Hashable, Sendable {
    /// Virtio feature bits without those of vhost.
    public let features: UInt64
    /// 1 to 256: SET_VRING_KICK has 8 bits for the index.
    public let queueCount: Int
    /// 1 to 32768.
    public let maximumQueueSize: Int
    /// At least 1.
    public let maximumMemoryRegions: Int
    /// What GET_PROTOCOL_FEATURES answers.
    public let protocolFeatures: ProtocolFeatures

    /// The protocol features of every device.
    public static let commonProtocolFeatures: ProtocolFeatures = [
        .mq, .logSharedMemory, .replyAck, .backendRequests, .configuration, .inflight, .resetDevice, .memorySlots,
        .status,
    ]

    /// - Parameter parksRequests: GET_VRING_BASE may leave requests in the inflight log. The numbers of the features
    ///   that say so are not the same in all front-ends.
    public init(
        features: UInt64, queueCount: Int, maximumQueueSize: Int, maximumMemoryRegions: Int,
        parksRequests: Bool = false, offersConfiguration: Bool = true, offersDirtyLog: Bool = true
    ) {
        precondition(features & VhostFeatures.all == 0, "not a device's feature")
        precondition((1...256).contains(queueCount), "1 to 256 queues")
        precondition((1...32768).contains(maximumQueueSize), "1 to 32768 descriptors in a queue")
        precondition(maximumMemoryRegions >= 1, "a device without memory")
        self.features = features
        self.queueCount = queueCount
        self.maximumQueueSize = maximumQueueSize
        self.maximumMemoryRegions = maximumMemoryRegions
        let parking: ProtocolFeatures = parksRequests ? [.vringBaseInflight, .skipDrain] : []
        var offered = Self.commonProtocolFeatures.union(parking)
        if !offersConfiguration { offered.subtract(.configuration) }
        if !offersDirtyLog { offered.subtract(.logSharedMemory) }
        protocolFeatures = offered
    }

    public init(of device: some VhostUserDevice) {
        self.init(
            features: device.offeredFeatures, queueCount: device.queueCount,
            maximumQueueSize: device.maximumQueueSize, maximumMemoryRegions: device.maximumMemoryRegions,
            parksRequests: device.parksRequests, offersConfiguration: device.offersConfiguration,
            offersDirtyLog: device.offersDirtyLog)
    }
}
