import Testing
import VhostUser
import Virtio

/// The dirty log, the device status and stops that leave requests behind: what a session makes of their messages.
@Suite struct DirtyLogSessionTests {
    private static let allWrites: UInt64 = 1 << 32 | 1 << 26
    private static let log = LogDescription(size: 4096, fileOffset: 0)
    private static let marked = QueueLogging(isOn: true, usedRing: nil)

    private func running(_ device: RecordingDevice = RecordingDevice()) -> PureSession {
        device.requestsPerRun = 5
        var session = PureSession.negotiated(device)
        session.startQueue()
        _ = device.takeEvents()
        return session
    }

    private var loggedAddress: VringAddress {
        var address = ringAddress()
        address.flags = .log
        address.logAddress = 0x2000
        return address
    }

    @Test func `logging is switched on and off while a queue runs, without a stop`() {
        var session = running()
        #expect(session.send(.setLogBase(Self.log)) == .reply(.success))
        #expect(session.send(.setFeatures(Self.allWrites)) == .done)
        #expect(session.send(.setVringAddress(loggedAddress)) == .done)
        let withRing = QueueLogging(isOn: true, usedRing: 0x2000)
        let events: [DeviceEvent] = [
            .dirtyLog(Self.log), .logging(0, Self.marked), .logging(1, Self.marked), .logging(0, withRing),
        ]
        #expect(session.device.takeEvents() == events)
        session.send(.setFeatures(1 << 32))
        #expect(session.device.takeEvents() == [.logging(0, .off), .logging(1, .off)])
        #expect(session.device.running[0] == ringSetup())
    }

    @Test func `a queue is told what to log before it starts`() throws {
        var session = PureSession.negotiated()
        session.send(.setLogBase(Self.log))
        session.send(.setFeatures(Self.allWrites))
        session.startQueue()
        let events = session.device.events
        let told = events.firstIndex(of: .logging(0, Self.marked))
        let started = events.firstIndex { $0.started == 0 }
        #expect(try #require(told) < #require(started))
    }

    /// QEMU starts a device in this order when it starts in the middle of a migration.
    @Test func `where every write must be logged, a queue waits for the log`() {
        var session = PureSession.negotiated(features: Self.allWrites)
        session.startQueue()
        #expect(session.session.missing(queue: 0) == .dirtyLog)
        #expect(session.device.running.isEmpty)
        session.send(.setLogBase(Self.log))
        #expect(session.device.running[0] == ringSetup())
    }

    @Test func `LOG_ALL without a way to share a log asks for none`() {
        var session = PureSession.negotiated(
            features: Self.allWrites, protocolFeatures: DeviceOffer.commonProtocolFeatures.subtracting(.logSharedMemory)
        )
        session.startQueue()
        #expect(session.device.running[0] == ringSetup())
    }

    @Test func `a log too small for memory is refused`() {
        // 16 MiB are 4096 pages: 512 bytes.
        for (size, isEnough) in [(511, false), (512, true)] as [(UInt64, Bool)] {
            var session = running()
            let message = FrontendMessage.setLogBase(LogDescription(size: size, fileOffset: 0))
            let refusal = isEnough ? nil : RequestRefusal.Reason.logTooShort(511, needed: 512)
            #expect(session.refusal(of: message) == refusal)
        }
        var session = running()
        for log in [LogDescription(size: 0, fileOffset: 0), LogDescription(size: .max, fileOffset: 8)] {
            #expect(session.refusal(of: .setLogBase(log)) == .endlessLog(log))
        }
    }

    @Test func `memory that outgrows the log stops the queues until there is a larger one`() {
        var session = running()
        session.send(.setLogBase(LogDescription(size: 512, fileOffset: 0)))
        session.send(.setFeatures(Self.allWrites))
        _ = session.device.takeEvents()
        session.send(.addMemoryRegion(otherMemory))
        #expect(session.device.takeEvents() == [.stop(0), .added(otherMemory)])
        let larger = LogDescription(size: 1 << 20, fileOffset: 0)
        session.send(.setLogBase(larger))
        #expect(session.device.takeEvents() == [.dirtyLog(larger), .start(0, ringSetup(base: 5))])
    }

    /// A migration that was given up, then more memory: the log is known still, and used no more.
    @Test func `a session whose memory has outgrown a log of before can be taken over`() {
        let log = FrontendMessage.setLogBase(LogDescription(size: 512, fileOffset: 0))
        let life: [FrontendMessage] =
            [.setProtocolFeatures(DeviceOffer.commonProtocolFeatures), .setFeatures(1 << 32)] + startMessages
            + [log, .setFeatures(Self.allWrites), .setFeatures(1 << 32), .addMemoryRegion(otherMemory)]
        var (session, journal) = (PureSession(), SessionJournal())
        for message in life {
            let slots = journal.slots(for: message)
            session.send(message)
            journal.note(message, slots: slots)
        }
        #expect(session.device.running[0] != nil)
        var next = PureSession()
        for entry in journal.messages {
            if case .close(let refusal) = next.send(entry.message) { Issue.record("\(refusal)") }
        }
        #expect(next.device.running[0] == session.device.running[0])
    }

    // MARK: Status

    @Test func `the status is told as it was written; FEATURES_OK only once features were taken`() {
        var session = PureSession()
        session.send(.setProtocolFeatures(.status))
        #expect(session.send(.getStatus) == .reply(.value(0)))
        session.send(.setStatus(0xb))
        #expect(session.send(.getStatus) == .reply(.value(0x3)))
        session.send(.setFeatures(1 << 32))
        session.send(.setStatus(0xf))
        #expect(session.send(.getStatus) == .reply(.value(0xf)))
        #expect(session.refusal(of: .setStatus(0x100)) == .wrongStatus(0x100))
    }

    /// QEMU 7.2 resets the device first and asks then where its queues have stopped.
    @Test func `status 0 resets the device, and GET_VRING_BASE still tells where its queues stopped`() {
        var session = running()
        session.send(.setStatus(0xf))
        #expect(session.send(.setStatus(0)) == .done)
        #expect(session.device.takeEvents() == [.stop(0), .reset(keepingMemory: true)])
        #expect(session.send(.getStatus) == .reply(.value(0)))
        let state = VringState(index: 0, value: 0)
        let reply = BackendReply.vringState(VringState(index: 0, value: 5))
        #expect(session.send(.getVringBase(state)) == .reply(reply))
        #expect(session.session.memory.regions == [ringMemory])
    }

    // MARK: Back-end requests

    @Test func `the device gets its channel, and learns whether its requests are acknowledged`() {
        for features in [DeviceOffer.commonProtocolFeatures, [.backendRequests]] {
            var session = PureSession.negotiated(protocolFeatures: features)
            #expect(session.send(.setBackendRequestFD) == .done)
            #expect(session.device.events == [.backendChannel(acknowledged: features.contains(.replyAck))])
        }
    }

    // MARK: Stops that leave requests behind

    @Test func `a stop may leave requests behind where that was negotiated, and each message says so`() {
        let state = VringState(index: 0, value: 0)
        let common = DeviceOffer.commonProtocolFeatures
        let cases: [(ProtocolFeatures, FrontendMessage, DeviceEvent)] = [
            (common, .getVringBase(state), .stop(0)),
            (common.union(.vringBaseInflight), .getVringBase(state), .park(0)),
            (common.union([.vringBaseInflight, .skipDrain]), .getVringBase(state), .stop(0)),
            (common.union([.vringBaseInflight, .skipDrain]), .getVringBaseWithoutDraining(state), .park(0)),
        ]
        for (features, message, event) in cases {
            let device = RecordingDevice(parksRequests: true)
            device.requestsPerRun = 5
            var session = PureSession.negotiated(device, protocolFeatures: features)
            session.startQueue()
            _ = device.takeEvents()
            let reply = BackendReply.vringState(VringState(index: 0, value: 5))
            #expect(session.send(message) == .reply(reply))
            let events: [DeviceEvent] = [event, .kick(0, hasFD: false)]
            #expect(device.takeEvents() == events)
        }
    }

    @Test func `a split ring does not go on at two positions`() {
        var session = PureSession()
        let base = VringState(index: 0, value: 0x8001_8001)
        #expect(session.refusal(of: .setVringBase(base)) == .wrongVringBase(base.value))
    }

    // MARK: Memory

    @Test func `there is a limit to all memory together`() {
        var session = PureSession.negotiated()
        func region(_ place: UInt64, size: UInt64) -> MemoryRegion {
            MemoryRegion(guestAddress: place << 44, size: size, frontendAddress: place << 44, fileOffset: 0)
        }
        #expect(session.send(.addMemoryRegion(region(0, size: 1 << 43))) == .done)
        #expect(session.refusal(of: .addMemoryRegion(region(1, size: 1 << 43 | 1))) == .tooMuchMemory(maximum: 1 << 44))
        #expect(session.send(.addMemoryRegion(region(1, size: 1 << 43))) == .done)
        #expect(session.refusal(of: .addMemoryRegion(region(2, size: 1))) == .tooMuchMemory(maximum: 1 << 44))
    }
}
