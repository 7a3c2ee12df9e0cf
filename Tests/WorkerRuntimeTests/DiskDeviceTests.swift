import BlockTarget
import FrontendKit
import Logging
import Platform
import Synchronization
import Telemetry
import Testing
import Uring
import VhostUser
import Virtio

@testable import WorkerRuntime

/// A disk whose storage takes its time, and those who cannot wait.
@Suite struct DiskDeviceTests {
    /// A device of two queues with one request of queue 0 in its storage, which finishes nothing before it is told to.
    private final class Stage {
        let gate: Gate
        let device: DiskDevice
        let loop: LoopThread
        let memory: FrontendKit.GuestMemory
        let endpoints: [QueueEndpoint]
        var driver: DriverQueue
        var setups: [QueueSetup]

        /// - Parameter hasNoRoom: the storage begins with nothing before it is told to, and requests in flight are
        ///   logged.
        init(drainMilliseconds: Int = 50, hasNoRoom: Bool = false) throws {
            let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let disk = DiskDescription(sectors: 1024, queueCount: 2)
            let gate = try Gate()
            let loop =
                hasNoRoom
                ? try LoopThread(
                    index: 0, service: DiskService(FullBackend(gate), disk), pollMicroseconds: 0, cpu: nil, log: log)
                : try LoopThread(
                    index: 0, service: DiskService(StallingBackend(gate), disk), pollMicroseconds: 0, cpu: nil, log: log
                )
            let memory = try FrontendKit.GuestMemory(size: 1 << 20)
            var allocator = GuestAllocator(memory.regions[0])
            let endpoints = try (0..<2).map { _ in
                try QueueEndpoint(memory: memory, ring: SplitRing(size: 16, in: &allocator))
            }
            self.gate = gate
            self.loop = loop
            self.memory = memory
            self.endpoints = endpoints
            device = DiskDevice(
                disk,
                ServedDevice.Parts(
                    queueCount: 2, maximumQueueSize: disk.maximumQueueSize, loops: [loop],
                    drainMilliseconds: drainMilliseconds,
                    statistics: try DeviceStatistics(queueCount: 2, queueSize: disk.maximumQueueSize), log: log))
            driver = DriverQueue(endpoints[0], usesEventIndex: false)
            setups = endpoints.map { endpoint in
                QueueSetup(
                    features: 1 << 32, size: 16,
                    descriptorTable: memory.frontendAddress(of: endpoint.ring.descriptorTable),
                    availableRing: memory.frontendAddress(of: endpoint.ring.availableRing),
                    usedRing: memory.frontendAddress(of: endpoint.ring.usedRing), base: 0)
            }
            try announceMemory()
            if hasNoRoom { try shareInflight() }
            for (index, endpoint) in endpoints.enumerated() {
                try device.setKick(endpoint.kick.fd.duplicate(), queue: index)
                try device.startQueue(index, setups[index])
            }
            request(head: 0)
            while gate.started.load(ordering: .acquiring) == 0 { spinHint() }
        }

        func announceMemory() throws {
            let region = memory.regions[0]
            try device.replaceMemory(
                [region.description], fds: ReceivedFDs(owning: [region.file.duplicate().release()]))
        }

        private func shareInflight() throws {
            let file = try device.makeInflight(queueCount: 2, queueSize: 16, packed: false)
            try device.setInflight(
                InflightDescription(size: file.size, fileOffset: 0, queueCount: 2, queueSize: 16),
                fd: file.fd.duplicate())
        }

        /// A FLUSH in two descriptors.
        func request(head: Int) {
            memory.write([4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], at: 0x8000)
            driver.write(Descriptor(address: 0x8000, length: 16, flags: .next, next: UInt16(head + 1)), at: head)
            driver.write(Descriptor(address: 0x9000, length: 1, flags: .deviceWrites), at: head + 1)
            driver.stage(head: head)
            driver.publish()
            driver.kick()
        }

        func waitForAnswer() throws {
            while try driver.nextCompletion() == nil { spinHint() }
        }

        deinit {
            gate.open()
            _ = loop.stop()
        }
    }

    @Test func `a queue that cannot be stopped in time is refused, and served on`() throws {
        let stage = try Stage()
        for _ in 0..<2 {
            #expect(throws: DeviceRefusal.self) { try stage.device.stopQueue(0) }
        }
        stage.gate.open()
        try stage.waitForAnswer()
        stage.request(head: 2)
        try stage.waitForAnswer()
        #expect(try stage.device.stopQueue(0) == 2)
        #expect(try stage.device.stopQueue(0) == 2)
    }

    @Test func `what the storage has not begun with is left in the log, and carried out by the next start`() throws {
        let stage = try Stage(drainMilliseconds: 60_000, hasNoRoom: true)
        #expect(try stage.device.parkQueue(0) == 1)
        #expect(try stage.driver.nextCompletion() == nil)
        stage.gate.open()
        try stage.device.startQueue(0, stage.setups[0])
        try stage.waitForAnswer()
        #expect(try stage.device.parkQueue(0) == 1)
    }

    @Test func `memory that cannot be replaced in time stays, and all queues are served on in it`() throws {
        let stage = try Stage()
        #expect(throws: DeviceRefusal.self) { try stage.announceMemory() }
        stage.gate.open()
        try stage.waitForAnswer()
        try stage.announceMemory()
        stage.request(head: 2)
        try stage.waitForAnswer()
        #expect(try stage.device.stopQueue(0) == 2)
        #expect(try stage.device.stopQueue(1) == 0)
    }

    @Test func `a queue whose storage hangs is refused to the next session until its requests are finished`() throws {
        let stage = try Stage(drainMilliseconds: 20)
        stage.device.reset(keepingMemory: false)
        try stage.announceMemory()
        #expect(throws: DeviceRefusal.self) { try stage.device.startQueue(0, stage.setups[0]) }
        try stage.device.startQueue(1, stage.setups[1])
        stage.gate.open()
        try stage.waitForAnswer()
        var setup = stage.setups[0]
        setup.base = 1
        var attempts = 0
        // The used element is published just before the queue is let go of.
        while attempts < 1_000_000 {
            attempts += 1
            if (try? stage.device.startQueue(0, setup)) != nil { break }
        }
        try stage.device.setKick(stage.endpoints[0].kick.fd.duplicate(), queue: 0)
        stage.request(head: 2)
        try stage.waitForAnswer()
        #expect(try stage.device.stopQueue(0) == 2)
    }
}

/// What holds a storage up.
private final class Gate: Sendable {
    let event: EventFD
    let started = Atomic<Int>(0)
    private let isOpenNow = Atomic<Bool>(false)

    init() throws { event = try EventFD() }

    var isOpen: Bool { isOpenNow.load(ordering: .acquiring) }

    func open() {
        isOpenNow.store(true, ordering: .releasing)
        event.signal()
    }
}

/// Finishes requests only while its gate is open.
private struct StallingBackend: ~Copyable, StorageBackend, Sendable {
    private let gate: Gate
    private var tokens: [UInt64] = []

    init(_ gate: Gate) { self.gate = gate }

    mutating func start(_ slot: inout RequestSlot) -> BackendStep {
        tokens.append(slot.token)
        gate.started.add(1, ordering: .releasing)
        return .pending
    }

    mutating func finish(_ slot: inout RequestSlot, result: Int32) -> BackendStep { .done(.ok) }
    mutating func submit() {}
    mutating func runDeferredWork() {}
    mutating func nextCompletion() -> IOCompletion? {
        guard gate.isOpen, !tokens.isEmpty else { return nil }
        return IOCompletion(token: tokens.removeFirst(), result: 0)
    }
    var queuedCount: Int { 0 }
    var pollDescriptors: [Int32] { [gate.event.fd.number] }
    var faults: StorageFaults { StorageFaults() }
}

/// Has no room for any request before its gate is open.
private struct FullBackend: ~Copyable, StorageBackend, Sendable {
    private let gate: Gate

    init(_ gate: Gate) { self.gate = gate }

    mutating func start(_ slot: inout RequestSlot) -> BackendStep {
        gate.started.add(1, ordering: .releasing)
        return gate.isOpen ? .done(.ok) : .stalled
    }

    mutating func finish(_ slot: inout RequestSlot, result: Int32) -> BackendStep { .done(.ok) }
    mutating func submit() {}
    mutating func runDeferredWork() {}
    mutating func nextCompletion() -> IOCompletion? { nil }
    var queuedCount: Int { 0 }
    var pollDescriptors: [Int32] { [gate.event.fd.number] }
    var faults: StorageFaults { StorageFaults() }
}
