internal import FrontendKit

/// A front-end that stays connected to one device.
final class Guest {
    private let frontend: FrontendBox
    private let load: LoadBox
    /// Mapped for as long as the back-end may use it.
    private let memory: GuestMemory

    private static let depth = 4

    init(_ socket: String, queues: Int, queueSize: Int) throws {
        var frontend = try Frontend.connect(to: socket)
        guard frontend.queueCount >= queues else { throw ScaleError("\(socket) has \(frontend.queueCount) queues") }
        var options = ThroughputLoad.Options()
        options.depth = Self.depth
        options.writePercentage = 50
        options.span = try frontend.readBlockConfiguration().capacity * 512
        let needed = ThroughputLoad.memoryNeeded(options, queueCount: queues)
        let memory = try GuestMemory(size: needed + queues * 32 * queueSize + (1 << 16))
        var allocator = GuestAllocator(memory.regions[0])
        let endpoints = try (0..<queues).map { _ in
            try QueueEndpoint(memory: memory, ring: SplitRing(size: queueSize, in: &allocator))
        }
        let usesEventIndex = frontend.usesEventIndex
        let load = ThroughputLoad(endpoints, usesEventIndex: usesEventIndex, options: options, in: &allocator)
        try frontend.start(memory, endpoints)
        self.memory = memory
        self.frontend = FrontendBox(frontend)
        self.load = LoadBox(load)
    }

    /// Lets all queues work for a moment.
    func work() throws {
        load.load.start()
        var requests = 0
        // A load that stalls throws.
        while requests == 0 {
            let report = try load.load.measure(milliseconds: 20)
            guard report.errors == 0 else {
                throw ScaleError("\(report.errors) of \(report.requests) requests failed")
            }
            requests += report.requests
        }
        try load.load.drain()
    }

    func stop() throws { try frontend.frontend.stop() }
}

// An array holds no noncopyable values.

private final class FrontendBox {
    var frontend: Frontend

    init(_ frontend: consuming Frontend) { self.frontend = frontend }
}

private final class LoadBox {
    var load: ThroughputLoad

    init(_ load: consuming ThroughputLoad) { self.load = load }
}
