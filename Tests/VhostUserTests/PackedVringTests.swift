import Testing
import VhostUser
import Virtio

/// Vrings that are packed: VIRTIO_F_RING_PACKED was agreed on.
@Suite struct PackedVringTests {
    private static let features: UInt64 = 1 << 34 | 1 << 32

    private static func session() -> PureSession {
        let device = RecordingDevice()
        device.offeredFeatures = features
        return .negotiated(device, features: features)
    }

    @Test func `a base has two positions with their wrap counters`() {
        var session = Self.session()
        session.startQueue()
        #expect(session.device.running == [0: ringSetup(features: Self.features, base: 0x8000_8000)])
        // Bits 0 to 15 the next available descriptor, bits 16 to 31 the next used one.
        session.send(.setVringBase(VringState(index: 0, value: 0x8007_0005)))
        #expect(session.device.running == [0: ringSetup(features: Self.features, base: 0x8007_0005)])
        let reply = session.send(.getVringBase(VringState(index: 0, value: 0)))
        #expect(reply == .reply(.vringState(VringState(index: 0, value: 0x8007_0005))))
    }

    @Test func `a ring that has not run is at its beginning`() {
        var session = Self.session()
        let reply = session.send(.getVringBase(VringState(index: 0, value: 0)))
        #expect(reply == .reply(.vringState(VringState(index: 0, value: 0x8000_8000))))
    }

    @Test func `a driver with the other kind of rings starts at the beginning`() {
        var session = Self.session()
        session.send(.setVringBase(VringState(index: 0, value: 0x0003_0003)))
        session.startQueue()
        session.send(.setFeatures(1 << 32))
        #expect(session.device.running == [0: ringSetup(features: 1 << 32, base: 0)])
        #expect(
            session.refusal(of: .setVringBase(VringState(index: 0, value: 0x8000_8000)))
                == .wrongVringBase(0x8000_8000))
    }

    @Test func `only the event suppression areas need to be in memory besides the ring`() {
        var session = Self.session()
        var address = ringAddress()
        let end = ringMemory.frontendAddress + ringMemory.size
        (address.availableRing, address.usedRing) = (end - 8, end - 4)
        for message in startMessages { session.send(message) }
        session.send(.setVringAddress(address))
        #expect(session.device.running[0]?.usedRing == end - 4)
    }
}
