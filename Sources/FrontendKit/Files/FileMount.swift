internal import Platform
internal import VhostUser

/// A file-system device in use: a session with its back-end, guest memory, queues, and a client that has agreed on
/// FUSE.
public struct FileMount: ~Copyable {
    /// What a mount asks for.
    public struct Options: Sendable {
        public var behaviour = FrontendBehaviour.qemuFileSystem
        /// Request queues; the client has the first, the others are for `makeQueue`.
        public var queueCount = 1
        /// Descriptors of each ring.
        public var queueSize = 128
        public var offer = FileSessionOffer()
        /// Of the client's queue.
        public var layout = FileQueue.Layout()
        /// Bytes of guest memory for whatever else the mount is used for.
        public var otherMemory = 0

        public init() {}
    }

    public var frontend: Frontend
    public let memory: GuestMemory
    /// The high-priority queue, then the request queues. Virtio 1.2, section 5.11.2.
    public let endpoints: [QueueEndpoint]
    public var allocator: GuestAllocator
    public var client: FileClient

    /// Connects to a back-end, gives it memory and queues, starts it, and agrees on FUSE.
    ///
    /// - Throws: `FrontendError`, `SystemError` or `FileError`.
    public init(connectingTo path: String, _ options: Options = Options()) throws {
        var frontend = try Frontend.connect(to: path, behaviour: options.behaviour)
        guard frontend.queueCount > options.queueCount else {
            throw FrontendError(
                .getQueueCount, .missing("\(options.queueCount) request queues beside the high-priority one"))
        }
        var layout = options.layout
        if frontend.features & VirtioFeatures.indirectDescriptors == 0 { layout.isIndirect = false }
        let rings = (1 + options.queueCount) * (32 * options.queueSize + 512)
        let needed = rings + layout.memoryNeeded + FileClient.priorityLayout.memoryNeeded + options.otherMemory
        let memory = try GuestMemory(size: (needed + (1 << 16) + 4095) & ~4095)
        var allocator = GuestAllocator(memory.regions[0])
        let isPacked = frontend.usesPackedRings
        let endpoints = try (0...options.queueCount).map { _ throws(SystemError) in
            try QueueEndpoint(
                memory: memory, ring: SplitRing(size: options.queueSize, in: &allocator), isPacked: isPacked)
        }
        var priority = FileClient.priorityLayout
        priority.isIndirect = layout.isIndirect
        var client = FileClient(
            requests: Self.makeQueue(1, endpoints, layout, frontend.usesEventIndex, in: &allocator),
            priority: Self.makeQueue(0, endpoints, priority, frontend.usesEventIndex, in: &allocator))
        try frontend.start(memory, endpoints)
        // Once this is answered, the back-end has heard of everything before it. A guest takes its time; here, Debian
        // 12's virtiofsd would have answered the first request before it knows where to say so, and ends then.
        _ = try frontend.ask(.getFeatures)
        try client.initialize(options.offer)
        self.frontend = frontend
        self.memory = memory
        self.endpoints = endpoints
        self.allocator = allocator
        self.client = client
    }

    /// Drives another request queue.
    ///
    /// - Parameter index: 2 and up; the client has the first.
    public mutating func makeQueue(_ index: Int, _ layout: FileQueue.Layout) -> FileQueue {
        precondition(index > 1 && index < endpoints.count, "no such queue, or the client's")
        return Self.makeQueue(index, endpoints, layout, frontend.usesEventIndex, in: &allocator)
    }

    /// Ends FUSE and stops the queues.
    public consuming func end() throws {
        try client.destroy()
        try frontend.stop()
    }

    private static func makeQueue(
        _ index: Int, _ endpoints: [QueueEndpoint], _ layout: FileQueue.Layout, _ usesEventIndex: Bool,
        in allocator: inout GuestAllocator
    ) -> FileQueue {
        let driver = DriverQueue(endpoints[index], usesEventIndex: usesEventIndex)
        return FileQueue(driver, layout: layout, firstUnique: UInt64(index + 1) << 48, in: &allocator)
    }
}
