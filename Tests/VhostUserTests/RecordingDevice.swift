import Platform
import Testing
import VhostUser
import Virtio

/// What a device was asked for, in order.
enum DeviceEvent: Hashable {
    case memory([MemoryRegion], fdCount: Int)
    case added(MemoryRegion)
    case removed(MemoryRegion)
    case kick(Int, hasFD: Bool)
    case call(Int, hasFD: Bool)
    case error(Int, hasFD: Bool)
    case start(Int, QueueSetup)
    case stop(Int)
    case wrote([UInt8], Int)
    case reset(keepingMemory: Bool)
    case inflight(InflightDescription)
    case park(Int)
    case dirtyLog(LogDescription)
    case logEvent
    case logging(Int, QueueLogging)
    case backendChannel(acknowledged: Bool)

    /// The queue that starts.
    var started: Int? {
        if case .start(let queue, _) = self { queue } else { nil }
    }
}

/// A device that does nothing but remember. It checks the session's side of the contract: what may not be asked of a
/// real device is recorded as an issue here.
final class RecordingDevice: VhostUserDevice {
    var offeredFeatures: UInt64 = 1 << 32 | 1 << 29 | 1 << 9
    let queueCount: Int
    let maximumQueueSize = 1024
    let maximumMemoryRegions: Int
    let parksRequests: Bool
    let configuration = (0..<60).map { UInt8($0 + 1) }

    private(set) var events: [DeviceEvent] = []
    /// Every queue that runs, with how many requests it has taken since it started.
    private(set) var running: [Int: QueueSetup] = [:]
    /// How many requests a queue takes before it is asked to stop.
    var requestsPerRun: UInt16 = 0
    /// The next call that can be refused is.
    var refusesNext = false
    private var held: [HeldFD] = []

    init(queueCount: Int = 2, maximumMemoryRegions: Int = 32, parksRequests: Bool = false) {
        self.parksRequests = parksRequests
        self.queueCount = queueCount
        self.maximumMemoryRegions = maximumMemoryRegions
    }

    /// Takes the events so far out.
    func takeEvents() -> [DeviceEvent] {
        defer { events = [] }
        return events
    }

    private func refuseIfAsked() throws(DeviceRefusal) {
        guard refusesNext else { return }
        refusesNext = false
        throw DeviceRefusal("the test says so")
    }

    private func hold(_ fd: consuming OwnedFD?) -> Bool {
        guard let fd else { return false }
        held.append(HeldFD(fd))
        return true
    }

    func makeInflight(queueCount: Int, queueSize: Int, packed: Bool) throws(DeviceRefusal) -> InflightFile {
        try refuseIfAsked()
        do throws(Errno) {
            let size = queueCount * queueSize * 16
            return InflightFile(size: UInt64(size), fd: try makeMemoryFile(name: "test-inflight", count: size))
        } catch {
            throw DeviceRefusal("\(error)")
        }
    }

    func setInflight(_ description: InflightDescription, fd: consuming OwnedFD) throws(DeviceRefusal) {
        try refuseIfAsked()
        events.append(.inflight(description))
        _ = hold(fd)
    }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) throws(DeviceRefusal) {
        try refuseIfAsked()
        events.append(.wrote(bytes, offset))
    }

    func replaceMemory(_ regions: [MemoryRegion], fds: consuming ReceivedFDs) throws(DeviceRefusal) {
        try refuseIfAsked()
        events.append(.memory(regions, fdCount: fds.count))
        while let fd = fds.takeFirst() { _ = hold(fd) }
    }

    func addMemory(_ region: MemoryRegion, fd: consuming OwnedFD) throws(DeviceRefusal) {
        try refuseIfAsked()
        events.append(.added(region))
        _ = hold(fd)
    }

    func removeMemory(_ region: MemoryRegion) throws(DeviceRefusal) {
        try refuseIfAsked()
        events.append(.removed(region))
    }

    func setKick(_ fd: consuming OwnedFD?, queue: Int) { events.append(.kick(queue, hasFD: hold(fd))) }
    func setCall(_ fd: consuming OwnedFD?, queue: Int) { events.append(.call(queue, hasFD: hold(fd))) }
    func setError(_ fd: consuming OwnedFD?, queue: Int) { events.append(.error(queue, hasFD: hold(fd))) }

    func startQueue(_ queue: Int, _ setup: QueueSetup) throws(DeviceRefusal) {
        #expect(running[queue] == nil, "queue \(queue) is started twice")
        try refuseIfAsked()
        events.append(.start(queue, setup))
        running[queue] = setup
    }

    func stopQueue(_ queue: Int) throws(DeviceRefusal) -> UInt32 {
        guard let setup = running[queue] else {
            Issue.record("queue \(queue) is stopped though it does not run")
            throw DeviceRefusal("not running")
        }
        try refuseIfAsked()
        events.append(.stop(queue))
        running[queue] = nil
        return setup.base &+ UInt32(requestsPerRun)
    }

    func parkQueue(_ queue: Int) throws(DeviceRefusal) -> UInt32 {
        let base = try stopQueue(queue)
        events[events.count - 1] = .park(queue)
        return base
    }

    func setDirtyLog(_ description: LogDescription, fd: consuming OwnedFD) throws(DeviceRefusal) {
        try refuseIfAsked()
        events.append(.dirtyLog(description))
        _ = hold(fd)
    }

    func setLogEvent(_ fd: consuming OwnedFD) throws(DeviceRefusal) {
        try refuseIfAsked()
        events.append(.logEvent)
        _ = hold(fd)
    }

    func setLogging(_ logging: QueueLogging, queue: Int) { events.append(.logging(queue, logging)) }

    func setBackendChannel(_ fd: consuming OwnedFD, acknowledged: Bool) throws(DeviceRefusal) {
        try refuseIfAsked()
        events.append(.backendChannel(acknowledged: acknowledged))
        _ = hold(fd)
    }

    func reset(keepingMemory: Bool) {
        events.append(.reset(keepingMemory: keepingMemory))
        running = [:]
        held = []
    }
}

/// A descriptor that can lie in an array.
final class HeldFD: Sendable {
    private let fd: OwnedFD

    var number: Int32 { fd.number }

    init(_ fd: consuming OwnedFD) {
        self.fd = fd
    }
}
