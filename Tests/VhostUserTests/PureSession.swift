import Platform
import VhostUser
import Virtio

/// A session without a socket: messages go in as values, the recording device answers, the outcome comes out.
struct PureSession {
    var session: Session
    let device: RecordingDevice

    init(_ device: RecordingDevice = RecordingDevice()) {
        self.device = device
        session = Session(offer: DeviceOffer(of: device))
    }

    /// A session that has taken features, by default all of the protocol's and those that enable queues from the start.
    static func negotiated(
        _ device: RecordingDevice = RecordingDevice(), features: UInt64 = 1 << 32,
        protocolFeatures: ProtocolFeatures = Session.offeredProtocolFeatures
    ) -> PureSession {
        var session = PureSession(device)
        session.send(.setProtocolFeatures(protocolFeatures))
        session.send(.setFeatures(features))
        return session
    }

    /// Carries a message out and returns the last step.
    @discardableResult
    mutating func send(_ message: FrontendMessage, needsReply: Bool = false) -> SessionStep {
        var fds = ReceivedFDs(owning: (0..<message.fdCount.lowerBound).map { _ in anyFD().release() })
        var step = session.receive(message, needsReply: needsReply)
        while case .call(let call) = step { step = session.resume(call.perform(on: device, fds: &fds)) }
        return step
    }

    /// Carries a message out that must be refused, and returns why.
    mutating func refusal(of message: FrontendMessage) -> RequestRefusal.Reason? {
        switch send(message) {
        case .close(let refusal) where refusal.kind == message.kind: refusal.reason
        default: nil
        }
    }

    /// Brings queue 0 up.
    mutating func startQueue() {
        for message in startMessages { send(message) }
    }
}

/// Guest memory of 16 MiB, with the rings of queue 0 at its start.
let ringMemory = MemoryRegion(guestAddress: 0, size: 16 << 20, frontendAddress: 0x7f00_0000_0000, fileOffset: 0)
/// Memory beside it, without rings.
let otherMemory = MemoryRegion(
    guestAddress: 1 << 32, size: 0x7620, frontendAddress: 0x7f10_0000_0000, fileOffset: 0)

func ringAddress(_ queue: UInt32 = 0, at offset: UInt64 = 0) -> VringAddress {
    let base = ringMemory.frontendAddress + UInt64(queue) << 16 + offset
    return VringAddress(
        index: queue, descriptorTable: base, usedRing: base + 0x2000, availableRing: base + 0x1000)
}

/// How the device is to serve a queue whose rings are at `ringAddress`.
func ringSetup(
    _ queue: UInt32 = 0, at offset: UInt64 = 0, features: UInt64 = 1 << 32, size: Int = 128, base: UInt32 = 0
) -> QueueSetup {
    let address = ringAddress(queue, at: offset)
    return QueueSetup(
        features: features, size: size, descriptorTable: address.descriptorTable,
        availableRing: address.availableRing, usedRing: address.usedRing, base: base)
}

/// What brings queue 0 up once features are taken.
let startMessages: [FrontendMessage] = [
    .setMemoryTable([ringMemory]),
    .setVringSize(VringState(index: 0, value: 128)),
    .setVringAddress(ringAddress()),
    .setVringKick(VringFile(index: 0, hasFD: true)),
]

/// Some descriptor; what is behind it does not matter.
func anyFD() -> OwnedFD {
    do {
        return try makeMemoryFile(name: "vhost-user test", count: 4096)
    } catch {
        fatalError("no memory file: \(error)")
    }
}
