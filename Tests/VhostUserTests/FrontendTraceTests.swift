import Testing
import VhostUser
import Virtio

/// What real front-ends send, in their order, over a real socket. Each leaves its queues running and gets the answers
/// that it insists on.
@Suite struct FrontendTraceTests {
    /// A vring's messages, each front-end in its own order.
    private func size(_ queue: UInt32) -> FrontendMessage { .setVringSize(VringState(index: queue, value: 128)) }
    private func base(_ queue: UInt32, _ base: UInt32 = 0) -> FrontendMessage {
        .setVringBase(VringState(index: queue, value: base))
    }
    private func address(_ queue: UInt32) -> FrontendMessage { .setVringAddress(ringAddress(queue)) }
    private func kick(_ queue: UInt32) -> FrontendMessage {
        .setVringKick(VringFile(index: UInt8(queue), hasFD: true))
    }
    private func call(_ queue: UInt32) -> FrontendMessage {
        .setVringCall(VringFile(index: UInt8(queue), hasFD: true))
    }
    private func enable(_ queue: UInt32, _ value: UInt32 = 1) -> FrontendMessage {
        .setVringEnable(VringState(index: queue, value: value))
    }
    private func getBase(_ queue: UInt32) -> FrontendMessage { .getVringBase(VringState(index: queue, value: 0)) }
    private func readConfiguration(_ count: Int) -> FrontendMessage {
        .getConfiguration(ConfigurationAccess(offset: 0, bytes: [UInt8](repeating: 0, count: count)))
    }

    private static let features: UInt64 = 1 << 32 | 1 << 29 | 1 << 9

    /// Sends messages that get no answer of their own, and expects the one that was asked for.
    private func send(_ messages: [FrontendMessage], on wire: Wire, needsReply: Bool = false) throws {
        for message in messages {
            let reply = try wire.exchange(message, needsReply: needsReply)
            #expect(reply == (needsReply ? .success : nil), "\(message.kind)")
        }
    }

    private func setup(_ queue: UInt32, base: UInt32 = 0) -> QueueSetup {
        ringSetup(queue, features: Self.features, base: base)
    }

    /// QEMU 7.2: calls before everything else, SET_FEATURES again at each start, SET_VRING_ENABLE last and for all
    /// queues; acknowledgements of the memory table and of SET_VRING_ADDR and the like only where it must know.
    @Test func `QEMU starts, stops for a reboot, and starts again`() throws {
        let device = RecordingDevice()
        device.requestsPerRun = 300
        let wire = try Wire(device)
        #expect(try wire.exchange(.getFeatures) == .value(Self.features | 1 << 30))
        let offered = try wire.exchange(.getProtocolFeatures)
        #expect(offered == .value(Session.offeredProtocolFeatures.rawValue))
        try send([.setProtocolFeatures([.mq, .replyAck, .configuration, .memorySlots])], on: wire)
        #expect(try wire.exchange(.getQueueCount) == .value(2))
        #expect(try wire.exchange(.getMaximumMemorySlots) == .value(32))
        try send([.setOwner], on: wire)
        #expect(try wire.exchange(.getFeatures) == .value(Self.features | 1 << 30))
        try send([call(0), call(1)], on: wire)
        let space = ConfigurationAccess(offset: 0, bytes: device.configuration)
        #expect(try wire.exchange(readConfiguration(60)) == .configuration(space))

        var start: UInt32 = 0
        for round in 0..<3 {
            try send([.setFeatures(Self.features | 1 << 30)], on: wire)
            if round == 0 {
                try send([.addMemoryRegion(ringMemory), .addMemoryRegion(otherMemory)], on: wire, needsReply: true)
            }
            for queue: UInt32 in 0..<2 {
                try send([size(queue), base(queue, start)], on: wire)
                try send([address(queue)], on: wire, needsReply: true)
                try send([kick(queue), call(queue)], on: wire)
            }
            #expect(device.running.isEmpty)
            try send([enable(0), enable(1)], on: wire, needsReply: true)
            #expect(device.running == [0: setup(0, base: start), 1: setup(1, base: start)])
            try send([enable(0, 0), enable(1, 0)], on: wire)
            #expect(device.running.isEmpty)
            start += 300
            for queue: UInt32 in 0..<2 {
                let reply = BackendReply.vringState(VringState(index: queue, value: start))
                #expect(try wire.exchange(getBase(queue)) == reply)
            }
        }
        #expect(device.events.count { $0.started == 0 } == 3)
        #expect(wire.hangUp() == "the peer closed the connection")
    }

    /// libblkio 1.5: acknowledgements asked for always, GETs included; guest addresses equal to its own; regions that
    /// are no multiple of a page; REM_MEM_REG with a descriptor; then the bare end of the stream. Several connections
    /// in a row.
    @Test func `libblkio connects several times in a row`() throws {
        let device = RecordingDevice()
        func region(_ address: UInt64, size: UInt64) -> MemoryRegion {
            MemoryRegion(guestAddress: address, size: size, frontendAddress: address, fileOffset: 0)
        }
        let rings = region(ringMemory.frontendAddress, size: 0x17620)
        let buffers = region(0x7f20_0000_0000, size: 0x5ffe)
        for _ in 0..<3 {
            let wire = try Wire(device)
            try send([.setOwner], on: wire)
            #expect(try wire.exchange(.getFeatures) == .value(Self.features | 1 << 30))
            try send([.setFeatures(Self.features | 1 << 30)], on: wire)
            _ = try wire.exchange(.getProtocolFeatures)
            try send([.setProtocolFeatures([.mq, .replyAck, .configuration, .memorySlots])], on: wire)
            #expect(try wire.exchange(.getQueueCount, needsReply: true) == .value(2))
            #expect(try wire.exchange(.getMaximumMemorySlots, needsReply: true) == .value(32))
            for _ in 0..<3 {
                let reply = try wire.exchange(readConfiguration(60), needsReply: true)
                #expect(reply == .configuration(ConfigurationAccess(offset: 0, bytes: device.configuration)))
            }
            try send([.addMemoryRegion(rings)], on: wire, needsReply: true)
            for queue: UInt32 in 0..<2 {
                let messages = [size(queue), base(queue), address(queue), kick(queue), call(queue), enable(queue)]
                try send(messages, on: wire, needsReply: true)
                #expect(device.running[Int(queue)] == setup(queue))
            }
            try send([.addMemoryRegion(buffers)], on: wire, needsReply: true)
            #expect(try wire.exchange(.removeMemoryRegion(buffers), needsReply: true, fdCount: 1) == .success)
            #expect(device.running.count == 2)
            #expect(wire.hangUp() == "the peer closed the connection")
            #expect(device.takeEvents().last == .reset(keepingMemory: false))
        }
    }

    /// SPDK's virtio-user initiator: no acknowledgements, no memory slots; 256 bytes of configuration or it fails;
    /// SET_VRING_ENABLE before all other messages about a vring; the memory table again and again, with rings stopped
    /// or not.
    @Test func `SPDK's initiator enables first and repeats its memory table`() throws {
        let device = RecordingDevice(queueCount: 3)
        device.requestsPerRun = 11
        let wire = try Wire(device)
        try send([.setOwner], on: wire)
        _ = try wire.exchange(.getFeatures)
        _ = try wire.exchange(.getProtocolFeatures)
        try send([.setProtocolFeatures([.mq, .configuration])], on: wire)
        #expect(try wire.exchange(.getQueueCount) == .value(3))
        let space = device.configuration + [UInt8](repeating: 0, count: 196)
        let reply = try wire.exchange(readConfiguration(256))
        #expect(reply == .configuration(ConfigurationAccess(offset: 0, bytes: space)))
        #expect(reply?.encode(to: .getConfiguration).count == 12 + 268)
        try send([.setFeatures(Self.features | 1 << 30)], on: wire)

        for queue: UInt32 in 0..<3 { try send([enable(queue)], on: wire) }
        try send([.setMemoryTable([ringMemory])], on: wire)
        for queue: UInt32 in 0..<3 {
            try send([call(queue), size(queue), base(queue), address(queue), kick(queue)], on: wire)
        }
        #expect(device.running == [0: setup(0), 1: setup(1), 2: setup(2)])
        try send([.setMemoryTable([ringMemory, otherMemory])], on: wire)
        #expect(device.running.count == 3)
        for queue: UInt32 in 0..<3 {
            #expect(try wire.exchange(getBase(queue)) == .vringState(VringState(index: queue, value: 11)))
            try send([.setMemoryTable([ringMemory])], on: wire)
        }
        #expect(device.running.isEmpty)
        for queue: UInt32 in 0..<3 {
            try send([size(queue), base(queue, 11), address(queue), kick(queue)], on: wire)
        }
        #expect(device.running[2] == setup(2, base: 11))
        #expect(wire.hangUp() == "the peer closed the connection")
    }

    /// cloud-hypervisor: the memory table first, all sizes, then each vring with its address before its base.
    @Test func `cloud-hypervisor sets all sizes first and enables at the end`() throws {
        let device = RecordingDevice()
        let wire = try Wire(device)
        try send([.setOwner], on: wire)
        _ = try wire.exchange(.getFeatures)
        _ = try wire.exchange(.getProtocolFeatures)
        try send([.setProtocolFeatures([.mq, .replyAck, .configuration, .memorySlots])], on: wire)
        #expect(try wire.exchange(.getQueueCount, needsReply: true) == .value(2))
        let reply = try wire.exchange(readConfiguration(60), needsReply: true)
        #expect(reply == .configuration(ConfigurationAccess(offset: 0, bytes: device.configuration)))
        let preparation = [
            FrontendMessage.setFeatures(Self.features | 1 << 30), .setMemoryTable([ringMemory, otherMemory]),
        ]
        try send(preparation + [size(0), size(1)], on: wire, needsReply: true)
        for queue: UInt32 in 0..<2 {
            try send([address(queue), base(queue), call(queue), kick(queue)], on: wire, needsReply: true)
        }
        #expect(device.running.isEmpty)
        try send([enable(0), enable(1)], on: wire, needsReply: true)
        #expect(device.running == [0: setup(0), 1: setup(1)])
        // Hotplug: a region more while the queues run.
        let plugged = MemoryRegion(
            guestAddress: 2 << 32, size: 1 << 30, frontendAddress: 0x7e00_0000_0000, fileOffset: 0)
        try send([.addMemoryRegion(plugged)], on: wire, needsReply: true)
        #expect(device.running.count == 2)
        #expect(wire.hangUp() == "the peer closed the connection")
    }
}
