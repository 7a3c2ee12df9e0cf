import Testing
import VhostUser
import Virtio

/// Negotiation, acknowledgements, memory and configuration: what a session answers and what it refuses.
@Suite struct SessionTests {
    @Test func `the device's features are offered with the bit for protocol features`() {
        var session = PureSession()
        #expect(session.send(.getFeatures) == .reply(.value(0x1_6400_0200)))
        #expect(session.send(.getProtocolFeatures) == .reply(.value(0b1_1011_0010_0010_1011)))
        #expect(
            DeviceOffer.commonProtocolFeatures.description
                == "[MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, "
                + "CONFIGURE_MEM_SLOTS, STATUS]")
    }

    @Test func `features that were not offered are refused`() {
        var session = PureSession()
        let offered: UInt64 = 0x1_6400_0200
        #expect(session.refusal(of: .setFeatures(1 << 32 | 1 << 27)) == .featuresNotOffered(1 << 27))
        #expect(session.refusal(of: .setFeatures(.max)) == .featuresNotOffered(~offered))
        #expect(session.refusal(of: .setProtocolFeatures([.mq, .rarp])) == .protocolFeaturesNotOffered(.rarp))
        #expect(session.send(.setFeatures(1 << 32)) == .done)
        #expect(session.send(.setProtocolFeatures(DeviceOffer.commonProtocolFeatures)) == .done)
    }

    @Test func `the device's limits are told`() {
        var session = PureSession.negotiated(RecordingDevice(queueCount: 5, maximumMemoryRegions: 17))
        #expect(session.send(.getQueueCount) == .reply(.value(5)))
        #expect(session.send(.getMaximumMemorySlots) == .reply(.value(17)))
    }

    @Test(arguments: [
        (FrontendMessage.getQueueCount, ProtocolFeatures.mq),
        (.getConfiguration(ConfigurationAccess(offset: 0, bytes: [0])), .configuration),
        (.setConfiguration(ConfigurationAccess(offset: 0, bytes: [0])), .configuration),
        (.getMaximumMemorySlots, .memorySlots), (.addMemoryRegion(ringMemory), .memorySlots),
        (.removeMemoryRegion(ringMemory), .memorySlots), (.resetDevice, .resetDevice),
        (.setLogBase(LogDescription(size: 4096, fileOffset: 0)), .logSharedMemory),
        (.setBackendRequestFD, .backendRequests), (.setStatus(1), .status), (.getStatus, .status),
        (.getVringBaseWithoutDraining(VringState(index: 0, value: 0)), .skipDrain),
    ])
    func `a message of a feature that was not taken is refused`(message: FrontendMessage, feature: ProtocolFeatures) {
        var session = PureSession.negotiated(protocolFeatures: DeviceOffer.commonProtocolFeatures.subtracting(feature))
        #expect(session.refusal(of: message) == .featureNotTaken(feature))
    }

    // MARK: Acknowledgements

    @Test func `an acknowledgement is sent when it is asked for and REPLY_ACK is taken`() {
        var session = PureSession()
        #expect(session.send(.setOwner, needsReply: true) == .done)
        #expect(session.send(.setProtocolFeatures(.replyAck), needsReply: true) == .done)
        #expect(session.send(.setOwner, needsReply: true) == .reply(.success))
        #expect(session.send(.setOwner) == .done)
    }

    @Test func `a reply is the only answer to a request that has one`() {
        var session = PureSession.negotiated()
        #expect(session.send(.getQueueCount, needsReply: true) == .reply(.value(2)))
        #expect(
            session.send(.getVringBase(VringState(index: 0, value: 0)), needsReply: true)
                == .reply(.vringState(VringState(index: 0, value: 0))))
    }

    @Test func `a refusal is acknowledged where that is asked for, else it closes the connection`() {
        var session = PureSession.negotiated()
        let refusal = RequestRefusal(.setFeatures, .featuresNotOffered(1))
        #expect(session.send(.setFeatures(1), needsReply: true) == .refuse(refusal))
        #expect(session.send(.setFeatures(1)) == .close(refusal))
        let unanswerable = RequestRefusal(.getVringBase, .noSuchVring(9, count: 2))
        #expect(session.send(.getVringBase(VringState(index: 9, value: 0)), needsReply: true) == .close(unanswerable))
    }

    @Test func `what the device refuses is refused`() {
        let device = RecordingDevice()
        var session = PureSession.negotiated(device)
        device.refusesNext = true
        #expect(session.refusal(of: .setMemoryTable([ringMemory])) == .device("the test says so"))
        #expect(session.session.memory.regions.isEmpty)
        #expect(session.send(.setMemoryTable([ringMemory]), needsReply: true) == .reply(.success))
    }

    @Test(arguments: [
        FrontendMessage.other(.sendRARP, payload: []), .other(RequestKind(rawValue: 99), payload: [1]),
    ])
    func `a message that belongs to nothing that is offered is refused, and the session goes on`(
        message: FrontendMessage
    ) {
        var session = PureSession.negotiated()
        let refusal = RequestRefusal(message.kind, .unsupported)
        #expect(session.send(message) == .close(refusal))
        let answer: SessionStep = message.kind.hasReply ? .close(refusal) : .refuse(refusal)
        #expect(session.send(message, needsReply: true) == answer)
        #expect(session.send(.setOwner, needsReply: true) == .reply(.success))
    }

    @Test func `RESET_OWNER is put up with and changes nothing`() {
        var session = PureSession.negotiated()
        session.startQueue()
        let before = session.session
        #expect(session.send(.resetOwner, needsReply: true) == .reply(.success))
        #expect(session.session == before)
    }

    @Test(arguments: [
        FrontendMessage.setVringSize(VringState(index: 2, value: 1)), .setVringAddress(ringAddress(2)),
        .setVringBase(VringState(index: 2, value: 0)), .getVringBase(VringState(index: 2, value: 0)),
        .setVringKick(VringFile(index: 2, hasFD: true)), .setVringCall(VringFile(index: 2, hasFD: true)),
        .setVringError(VringFile(index: 2, hasFD: false)), .setVringEnable(VringState(index: 2, value: 1)),
    ])
    func `a vring that does not exist is refused`(message: FrontendMessage) {
        var session = PureSession.negotiated()
        #expect(session.refusal(of: message) == .noSuchVring(2, count: 2))
        #expect(session.device.events.isEmpty)
    }

    // MARK: Configuration

    @Test(arguments: [(0, 60), (0, 8), (32, 1), (59, 1), (0, 256), (56, 200), (255, 1)])
    func `as much configuration is answered as was asked for, zero where there is none`(offset: Int, count: Int) {
        var session = PureSession.negotiated()
        let request = ConfigurationAccess(offset: UInt32(offset), bytes: [UInt8](repeating: 0xee, count: count))
        let space = session.device.configuration + [UInt8](repeating: 0, count: 196)
        let expected = ConfigurationAccess(offset: UInt32(offset), bytes: Array(space[offset..<offset + count]))
        #expect(session.send(.getConfiguration(request)) == .reply(.configuration(expected)))
    }

    @Test(arguments: [(0, 0), (256, 1), (1, 256), (UInt32.max, 1), (UInt32.max, 256)])
    func `configuration that cannot exist is answered with nothing`(offset: UInt32, count: Int) {
        var session = PureSession.negotiated()
        let access = ConfigurationAccess(offset: offset, bytes: [UInt8](repeating: 0, count: count))
        #expect(session.send(.getConfiguration(access), needsReply: true) == .reply(.empty))
        #expect(session.refusal(of: .setConfiguration(access)) == .outsideConfiguration(offset, count: count))
    }

    @Test func `configuration is written through the device, which may refuse`() {
        let device = RecordingDevice()
        var session = PureSession.negotiated(device)
        let write = FrontendMessage.setConfiguration(ConfigurationAccess(offset: 32, bytes: [1]))
        #expect(session.send(write, needsReply: true) == .reply(.success))
        #expect(device.events == [.wrote([1], 32)])
        device.refusesNext = true
        #expect(session.refusal(of: write) == .device("the test says so"))
    }

    // MARK: Memory

    @Test func `regions that share an address are refused`() {
        func region(_ guest: UInt64, _ frontend: UInt64, size: UInt64 = 0x1000) -> MemoryRegion {
            MemoryRegion(guestAddress: guest, size: size, frontendAddress: frontend, fileOffset: 0)
        }
        let first = region(0x10000, 0x90000)
        let colliding = [
            first, region(0x10fff & ~15, 0xa0000), region(0xf010, 0xa0000), region(0x20000, 0x90ff0),
            region(0x20000, 0x8f010), region(0, 0xa0000, size: 0x20000), region(0x10010, 0xa0000, size: 1),
        ]
        for other in colliding {
            var session = PureSession.negotiated()
            #expect(session.refusal(of: .setMemoryTable([first, other])) == .overlappingRegions(other, first))
            session.send(.addMemoryRegion(first))
            #expect(session.refusal(of: .addMemoryRegion(other)) == .overlappingRegions(other, first))
            #expect(session.session.memory.regions == [first])
        }
        var session = PureSession.negotiated()
        let neighbours = [first, region(0x11000, 0x91000), region(0xf000, 0x8f000)]
        #expect(session.send(.setMemoryTable(neighbours)) == .done)
    }

    @Test func `regions without bytes or without end are refused`() {
        var session = PureSession.negotiated()
        var region = otherMemory
        region.size = 0
        #expect(session.refusal(of: .addMemoryRegion(region)) == .emptyRegion(region))
        for path in [\MemoryRegion.guestAddress, \.frontendAddress, \.fileOffset, \.size] {
            region = otherMemory
            region[keyPath: path] = .max & ~15
            #expect(session.refusal(of: .addMemoryRegion(region)) == .endlessRegion(region))
            #expect(session.refusal(of: .setMemoryTable([region])) == .endlessRegion(region))
        }
    }

    @Test func `a region may end at the last address of all`() {
        var session = PureSession.negotiated()
        let last = MemoryRegion(
            guestAddress: .max - 0xfff, size: 0x1000, frontendAddress: .max - 0xfff, fileOffset: 0)
        #expect(session.send(.addMemoryRegion(last)) == .done)
        let lastOfFile = MemoryRegion(
            guestAddress: 0, size: 16, frontendAddress: 0, fileOffset: UInt64(Int64.max) - 31)
        #expect(session.send(.addMemoryRegion(lastOfFile)) == .done)
    }

    @Test func `a region whose file and address are out of step is refused`() {
        var session = PureSession.negotiated()
        var region = otherMemory
        region.fileOffset = 8
        #expect(session.refusal(of: .addMemoryRegion(region)) == .misalignedRegion(region))
    }

    @Test func `there are no more regions than slots`() {
        var session = PureSession.negotiated(RecordingDevice(maximumMemoryRegions: 3))
        func region(_ place: UInt64) -> MemoryRegion {
            MemoryRegion(guestAddress: place << 20, size: 1 << 20, frontendAddress: place << 20, fileOffset: 0)
        }
        #expect(session.refusal(of: .setMemoryTable((0..<4).map(region))) == .tooManyRegions(4, maximum: 3))
        for place: UInt64 in 0..<3 { #expect(session.send(.addMemoryRegion(region(place))) == .done) }
        #expect(session.refusal(of: .addMemoryRegion(region(3))) == .tooManyRegions(4, maximum: 3))
        #expect(session.send(.removeMemoryRegion(region(1))) == .done)
        #expect(session.send(.addMemoryRegion(region(3))) == .done)
    }

    @Test func `a region is taken away by its addresses and size, whatever its place in the file`() {
        var session = PureSession.negotiated()
        session.send(.addMemoryRegion(otherMemory))
        var other = otherMemory
        other.size -= 1
        #expect(session.refusal(of: .removeMemoryRegion(other)) == .noSuchRegion(other))
        other = otherMemory
        other.fileOffset = 0x1000
        #expect(session.send(.removeMemoryRegion(other)) == .done)
        #expect(session.refusal(of: .removeMemoryRegion(other)) == .noSuchRegion(other))
    }

    @Test func `a new table takes the place of all regions`() {
        var session = PureSession.negotiated()
        session.send(.addMemoryRegion(otherMemory))
        #expect(session.send(.setMemoryTable([otherMemory, ringMemory])) == .done)
        #expect(session.session.memory.regions == [otherMemory, ringMemory])
        #expect(session.send(.setMemoryTable([ringMemory])) == .done)
        #expect(session.session.memory.regions == [ringMemory])
    }

    @Test func `a refusal says what it is about`() {
        #expect(
            RequestRefusal(.addMemoryRegion, .endlessRegion(otherMemory)).description
                == "ADD_MEM_REG refused: memory region 0x100000000+0x7620 (front-end 0x7f1000000000, file 0x0) "
                + "goes beyond the end of an address space or file")
        #expect(
            RequestRefusal(RequestKind(rawValue: 99), .unsupported).description
                == "message 99 refused: this back-end offers no feature that has it")
    }
}
