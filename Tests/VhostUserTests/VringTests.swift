import Testing
import VhostUser
import Virtio

/// When a vring runs, and with what.
@Suite struct VringTests {
    static let size = FrontendMessage.setVringSize(VringState(index: 0, value: 128))
    static let address = FrontendMessage.setVringAddress(ringAddress())
    static let base = FrontendMessage.setVringBase(VringState(index: 0, value: 7))
    static let kick = FrontendMessage.setVringKick(VringFile(index: 0, hasFD: true))
    static let enable = FrontendMessage.setVringEnable(VringState(index: 0, value: 1))
    static let disable = FrontendMessage.setVringEnable(VringState(index: 0, value: 0))
    static let getBase = FrontendMessage.getVringBase(VringState(index: 0, value: 0))

    /// A session whose queue 0 runs and takes 5 requests before it stops.
    private func running(_ device: RecordingDevice = RecordingDevice()) -> PureSession {
        device.requestsPerRun = 5
        var session = PureSession.negotiated(device)
        session.startQueue()
        #expect(device.running == [0: ringSetup()])
        _ = device.takeEvents()
        return session
    }

    // MARK: Start

    /// All orders of what starts a vring; SET_VRING_BASE among them, which may come too late.
    @Test(arguments: [
        [FrontendMessage.setFeatures(1 << 32 | 1 << 30), .setMemoryTable([ringMemory]), enable],
        [.setFeatures(1 << 32), .addMemoryRegion(otherMemory), .addMemoryRegion(ringMemory)],
        [.setFeatures(1 << 32), .setMemoryTable([otherMemory, ringMemory])],
        [.setFeatures(1 << 32), .addMemoryRegion(ringMemory), enable],
    ])
    func `a vring starts exactly once in every order of messages`(others: [FrontendMessage]) {
        var orders = 0
        forEveryOrder(of: others + [Self.size, Self.address, Self.kick, Self.base]) { order in
            orders += 1
            var session = PureSession()
            session.send(.setProtocolFeatures(Session.offeredProtocolFeatures))
            for message in order {
                session.send(message, needsReply: true)
                let isComplete = session.session.missing(queue: 0).isEmpty
                #expect((session.device.running[0] != nil) == isComplete, "\(order.map(\.kind))")
            }
            #expect(session.session.missing(queue: 0).isEmpty)
            #expect(session.device.running == [0: ringSetup(base: 7)])
            let starts = session.device.events.count { $0.started == 0 }
            let baseWasLate = session.device.events.contains(.stop(0))
            #expect(starts == (baseWasLate ? 2 : 1), "\(order.map(\.kind))")
        }
        #expect(orders == [6: 720, 7: 5040][others.count + 4])
    }

    @Test func `every message sent twice starts nothing twice`() {
        let messages = [
            .setFeatures(1 << 32 | 1 << 30), .setMemoryTable([ringMemory]), Self.size, Self.address, Self.kick,
        ]
        forEveryOrder(of: messages) { order in
            var session = PureSession.negotiated()
            session.send(Self.base)
            session.send(Self.enable)
            for message in order + order.reversed() { session.send(message) }
            #expect(session.device.events.count { $0.started == 0 } == 1)
            #expect(!session.device.events.contains(.stop(0)))
        }
    }

    @Test func `a vring says what it waits for`() {
        var session = PureSession()
        let all: VringNeeds = [.features, .size, .address, .kick, .memory]
        #expect(session.session.missing(queue: 0) == all)
        #expect(all.description == "features, size, addresses, kick, memory at its addresses")
        session.send(.setFeatures(1 << 32 | 1 << 30))
        #expect(session.session.missing(queue: 0) == [.size, .address, .kick, .enable, .memory])
        for message in startMessages { session.send(message) }
        #expect(session.session.missing(queue: 0) == .enable)
        #expect(session.session.missing(queue: 1) == [.size, .address, .kick, .enable])
    }

    @Test func `vrings begin enabled without protocol features and disabled with them`() {
        for (features, starts) in [(1 << 32 as UInt64, true), (1 << 32 | 1 << 30, false)] {
            var session = PureSession.negotiated(features: features)
            session.startQueue()
            #expect(session.device.running.isEmpty != starts)
        }
    }

    @Test func `a vring without an eventfd to kick it is polled, and runs too`() {
        var session = PureSession.negotiated()
        for message in startMessages.dropLast() { session.send(message) }
        session.send(.setVringKick(VringFile(index: 0, hasFD: false)))
        #expect(session.device.running == [0: ringSetup()])
    }

    @Test func `all parts of the ring must lie in memory, each in one region`() {
        // 128 descriptors: 2048 bytes, 260 bytes, 1028 bytes; 2 more for each ring with EVENT_IDX.
        let table = 0x10_0000 as UInt64
        func session(_ sizes: [UInt64], features: UInt64) -> PureSession {
            var session = PureSession.negotiated(features: features)
            for (index, size) in sizes.enumerated() {
                let start = table + UInt64(index) << 20
                session.send(
                    .addMemoryRegion(
                        MemoryRegion(guestAddress: start, size: size, frontendAddress: start, fileOffset: 0)))
            }
            session.send(Self.size)
            session.send(Self.kick)
            session.send(
                .setVringAddress(
                    VringAddress(
                        index: 0, descriptorTable: table, usedRing: table + 2 << 20, availableRing: table + 1 << 20)))
            return session
        }
        let plain: [([UInt64], Bool)] = [
            ([2048, 260, 1028], true), ([2047, 260, 1028], false), ([2048, 259, 1028], false),
            ([2048, 260, 1027], false),
        ]
        for (sizes, runs) in plain {
            #expect(session(sizes, features: 0x1_0000_0000).device.running.isEmpty != runs, "\(sizes)")
        }
        let withEventIndex: [([UInt64], Bool)] = [
            ([2048, 262, 1030], true), ([2048, 261, 1030], false), ([2048, 262, 1029], false),
        ]
        for (sizes, runs) in withEventIndex {
            #expect(session(sizes, features: 0x1_2000_0000).device.running.isEmpty != runs, "\(sizes)")
        }
    }

    @Test func `a ring may end where its region ends, not beyond`() {
        let region = MemoryRegion(guestAddress: 0, size: 0x10000, frontendAddress: 0x7f00_0000_0000, fileOffset: 0)
        let end = region.frontendAddress + region.size
        let last = VringAddress(
            index: 0, descriptorTable: end - 2048, usedRing: end - 1028, availableRing: end - 260)
        let steps: [(WritableKeyPath<VringAddress, UInt64>, UInt64)] = [
            (\.descriptorTable, 16), (\.usedRing, 4), (\.availableRing, 2),
        ]
        for (part, step) in steps {
            var session = PureSession.negotiated()
            for message in [.setMemoryTable([region]), Self.size, Self.kick] { session.send(message) }
            var address = last
            address[keyPath: part] += step
            session.send(.setVringAddress(address))
            #expect(session.session.missing(queue: 0) == .memory)
            session.send(.setVringAddress(last))
            #expect(session.device.running.count == 1)
        }
    }

    @Test func `a start that the device refuses is tried again with the next message that could start it`() {
        let device = RecordingDevice()
        var session = PureSession.negotiated(device)
        for message in startMessages.dropLast() { session.send(message) }
        device.refusesNext = true
        #expect(
            session.send(Self.kick, needsReply: true)
                == .refuse(RequestRefusal(.setVringKick, .device("the test says so"))))
        #expect(session.send(.setVringCall(VringFile(index: 0, hasFD: true))) == .done)
        #expect(device.running.isEmpty)
        #expect(session.send(Self.enable) == .done)
        #expect(device.running == [0: ringSetup()])
    }

    @Test func `one vring that the device refuses does not keep another from starting`() {
        let device = RecordingDevice()
        var session = PureSession.negotiated(device)
        for queue: UInt32 in 0..<2 {
            session.send(.setVringSize(VringState(index: queue, value: 128)))
            session.send(.setVringAddress(ringAddress(queue)))
            session.send(.setVringKick(VringFile(index: UInt8(queue), hasFD: true)))
        }
        session.send(.setMemoryTable([otherMemory]))
        // Memory itself is accepted; the first start is what is refused.
        var step = session.session.receive(.setMemoryTable([ringMemory]), needsReply: true)
        #expect(step == .call(.replaceMemory([ringMemory])))
        step = session.session.resume(.done)
        #expect(step == .call(.startQueue(0, ringSetup(0))))
        step = session.session.resume(.refused(DeviceRefusal("no")))
        #expect(step == .call(.startQueue(1, ringSetup(1))))
        step = session.session.resume(.done)
        #expect(step == .refuse(RequestRefusal(.setMemoryTable, .device("no"))))
        #expect(session.session.setup(ofRunning: 0) == nil)
        #expect(session.session.setup(ofRunning: 1) == ringSetup(1))
    }

    // MARK: Stop

    @Test func `GET_VRING_BASE stops that vring only, tells where, and forgets its kick`() {
        let device = RecordingDevice()
        var session = running(device)
        session.send(.setVringSize(VringState(index: 1, value: 128)))
        session.send(.setVringAddress(ringAddress(1)))
        session.send(.setVringKick(VringFile(index: 1, hasFD: true)))
        _ = device.takeEvents()
        #expect(session.send(Self.getBase) == .reply(.vringState(VringState(index: 0, value: 5))))
        #expect(device.takeEvents() == [.stop(0), .kick(0, hasFD: false)])
        #expect(device.running == [1: ringSetup(1)])
        for message in [Self.enable, Self.size, Self.address, .setMemoryTable([ringMemory])] { session.send(message) }
        #expect(device.running == [1: ringSetup(1)])
        session.send(Self.kick)
        #expect(device.running[0] == ringSetup(base: 5))
    }

    @Test func `GET_VRING_BASE of a vring that never ran answers where it would have begun`() {
        var session = PureSession.negotiated()
        #expect(session.send(Self.getBase) == .reply(.vringState(VringState(index: 0, value: 0))))
        session.send(Self.base)
        #expect(session.send(Self.getBase) == .reply(.vringState(VringState(index: 0, value: 7))))
    }

    @Test func `a vring that the device cannot stop closes the connection`() {
        let device = RecordingDevice()
        var session = running(device)
        device.refusesNext = true
        #expect(
            session.send(Self.getBase, needsReply: true)
                == .close(RequestRefusal(.getVringBase, .device("the test says so"))))
    }

    @Test func `a disabled vring stops and goes on where it was when it is enabled`() {
        var session = running()
        #expect(session.send(Self.disable, needsReply: true) == .reply(.success))
        #expect(session.device.takeEvents() == [.stop(0)])
        #expect(session.send(Self.disable) == .done)
        #expect(session.send(Self.enable) == .done)
        #expect(session.device.takeEvents() == [.start(0, ringSetup(base: 5))])
    }

    @Test func `a vring stops when the memory below it goes, before it goes, and starts when it is back`() {
        var session = running()
        session.send(.addMemoryRegion(otherMemory))
        session.send(.removeMemoryRegion(otherMemory))
        #expect(session.device.takeEvents() == [.added(otherMemory), .removed(otherMemory)])
        session.send(.removeMemoryRegion(ringMemory))
        #expect(session.device.takeEvents() == [.stop(0), .removed(ringMemory)])
        session.send(.addMemoryRegion(ringMemory))
        #expect(session.device.takeEvents() == [.added(ringMemory), .start(0, ringSetup(base: 5))])
        session.send(.setMemoryTable([otherMemory]))
        #expect(session.device.takeEvents() == [.stop(0), .memory([otherMemory], fdCount: 1)])
    }

    @Test func `a vring runs on in a new memory table that still has its rings`() {
        var session = running()
        session.send(.setMemoryTable([otherMemory, ringMemory]))
        #expect(session.device.takeEvents() == [.memory([otherMemory, ringMemory], fdCount: 2)])
    }

    @Test func `a vring that was stopped for a message that the device refuses runs on`() {
        let device = RecordingDevice()
        var session = running(device)
        #expect(session.session.receive(.setMemoryTable([otherMemory]), needsReply: true) == .call(.stopQueue(0)))
        #expect(session.session.resume(.stopped(base: 9)) == .call(.replaceMemory([otherMemory])))
        let step = session.session.resume(.refused(DeviceRefusal("no")))
        #expect(step == .call(.startQueue(0, ringSetup(base: 9))))
        #expect(session.session.resume(.done) == .refuse(RequestRefusal(.setMemoryTable, .device("no"))))
        #expect(session.session.memory.regions == [ringMemory])
    }

    @Test func `RESET_DEVICE stops vrings and forgets them, memory and protocol features stay`() {
        var session = running()
        #expect(session.send(.resetDevice, needsReply: true) == .reply(.success))
        #expect(session.device.takeEvents() == [.stop(0), .reset(keepingMemory: true)])
        #expect(session.session.missing(queue: 0) == [.features, .size, .address, .kick])
        session.send(.setFeatures(1 << 32))
        for message in startMessages.dropFirst() { session.send(message) }
        #expect(session.device.running == [0: ringSetup()])
    }

    // MARK: Changes while a vring runs

    @Test func `a running vring is told of new eventfds without a stop`() {
        var session = running()
        session.send(Self.kick)
        session.send(.setVringCall(VringFile(index: 0, hasFD: false)))
        session.send(.setVringError(VringFile(index: 0, hasFD: false)))
        #expect(
            session.device.takeEvents() == [.kick(0, hasFD: true), .call(0, hasFD: false), .error(0, hasFD: false)])
    }

    @Test(arguments: [
        (FrontendMessage.setVringSize(VringState(index: 0, value: 64)), ringSetup(size: 64, base: 5)),
        (.setVringAddress(ringAddress(at: 0x8000)), ringSetup(at: 0x8000, base: 5)),
        (.setVringBase(VringState(index: 0, value: 40)), ringSetup(base: 40)),
        (.setFeatures(1 << 32 | 1 << 9), ringSetup(features: 1 << 32 | 1 << 9, base: 5)),
    ])
    func `a running vring that is changed stops and starts with what is new`(
        message: FrontendMessage, setup: QueueSetup
    ) {
        var session = running()
        #expect(session.send(message, needsReply: true) == .reply(.success))
        #expect(session.device.takeEvents() == [.stop(0), .start(0, setup)])
    }

    @Test(arguments: [size, address, enable, .setVringBase(VringState(index: 0, value: 0)), .setFeatures(1 << 32)])
    func `a message that says what is so already does not disturb a running vring`(message: FrontendMessage) {
        var session = running()
        #expect(session.send(message, needsReply: true) == .reply(.success))
        #expect(session.device.takeEvents().isEmpty)
    }

    @Test func `the log flag of a running vring's addresses does not disturb it`() {
        var session = running()
        var address = ringAddress()
        address.flags = .log
        address.logAddress = 0x1000
        #expect(session.send(.setVringAddress(address)) == .done)
        #expect(session.device.takeEvents().isEmpty)
    }

    @Test func `a second SET_FEATURES with protocol features disables a vring that was never enabled`() {
        var session = running()
        session.send(.setFeatures(1 << 32 | 1 << 30))
        #expect(session.device.takeEvents() == [.stop(0)])
        session.send(Self.enable)
        #expect(session.device.running == [0: ringSetup(base: 5)])
    }

    // MARK: Numbers

    @Test func `sizes, bases and enable values are checked`() {
        var session = PureSession.negotiated()
        for value in [UInt32(0), 1025, .max] {
            #expect(
                session.refusal(of: .setVringSize(VringState(index: 0, value: value)))
                    == .wrongVringSize(value, maximum: 1024))
        }
        for value: UInt32 in [1, 100, 1024] {
            #expect(session.send(.setVringSize(VringState(index: 0, value: value))) == .done)
        }
        for value in [UInt32(65536), .max] {
            #expect(session.refusal(of: .setVringBase(VringState(index: 0, value: value))) == .wrongVringBase(value))
            #expect(
                session.refusal(of: .setVringEnable(VringState(index: 0, value: value))) == .wrongVringEnable(value))
        }
        #expect(session.send(.setVringBase(VringState(index: 0, value: 65535))) == .done)
        #expect(session.refusal(of: .setVringEnable(VringState(index: 0, value: 2))) == .wrongVringEnable(2))
    }

    @Test func `a vring's parts are aligned`() {
        let parts = [(\VringAddress.descriptorTable, 16 as UInt64), (\.availableRing, 2), (\.usedRing, 4)]
        var session = PureSession.negotiated()
        for (part, alignment) in parts {
            for offset in 0...16 as ClosedRange<UInt64> {
                var address = ringAddress()
                address[keyPath: part] += offset
                let reason = session.refusal(of: .setVringAddress(address))
                let wrong = RequestRefusal.Reason.misalignedVring(address[keyPath: part], alignment: alignment)
                #expect(reason == (offset % alignment == 0 ? nil : wrong))
            }
        }
    }
}

/// Calls `body` with every order of `elements`.
func forEveryOrder<Element>(of elements: [Element], _ body: ([Element]) -> Void) {
    var order = elements
    func permute(_ count: Int) {
        if count <= 1 { return body(order) }
        for index in 0..<count {
            permute(count - 1)
            order.swapAt(count.isMultiple(of: 2) ? index : 0, count - 1)
        }
    }
    permute(order.count)
}
