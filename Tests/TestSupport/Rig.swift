public import FrontendKit
internal import Platform

/// Guest memory with queues, and a back-end that serves them.
public struct Rig: ~Copyable {
    public var frontend: Frontend
    public let memory: GuestMemory
    public let endpoints: [QueueEndpoint]
    public var allocator: GuestAllocator

    /// Connects to a back-end, gives it memory and queues and starts it.
    public init(
        connectingTo path: String, behaviour: FrontendBehaviour = .qemu, queueCount: Int = 1, queueSize: Int = 256,
        memorySize: Int = 32 << 20, addressing: GuestMemory.Addressing = .mapped
    ) throws {
        var frontend = try Frontend.connect(to: path, behaviour: behaviour)
        let memory = try GuestMemory(size: memorySize, addressing: addressing)
        var allocator = GuestAllocator(memory.regions[0])
        let isPacked = frontend.usesPackedRings
        let endpoints = try (0..<queueCount).map { _ in
            try QueueEndpoint(memory: memory, ring: SplitRing(size: queueSize, in: &allocator), isPacked: isPacked)
        }
        try frontend.start(memory, endpoints)
        self.frontend = frontend
        self.memory = memory
        self.endpoints = endpoints
        self.allocator = allocator
    }

    /// A driver for one request at a time on the first queue.
    public mutating func makeDriver(bufferSize: Int = 65536) -> BlockDriver {
        let driver = DriverQueue(endpoints[0], usesEventIndex: frontend.usesEventIndex)
        return BlockDriver(driver, bufferSize: bufferSize, in: &allocator)
    }

    /// Runs a verifying load on all queues, fitted to what the device offers.
    public mutating func runLoad(_ options: VerifiedLoad.Options, monitor: LoadMonitor = LoadMonitor()) throws
        -> LoadReport
    {
        var options = options
        options.adapt(to: try frontend.readBlockConfiguration(), features: frontend.features)
        let load = VerifiedLoad(
            endpoints, usesEventIndex: frontend.usesEventIndex, options: options, in: &allocator)
        return try load.run(monitor: monitor)
    }
}

/// A seed for this run, which a failing test prints.
public func makeSeed() -> UInt64 { UInt64.random(in: 1...UInt64.max) }
