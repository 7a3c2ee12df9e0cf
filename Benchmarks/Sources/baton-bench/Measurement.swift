internal import CCeiling
internal import FrontendKit
internal import Glibc
internal import Platform

/// One point of the benchmark: what is asked, how deep, over how many queues.
struct Point: Hashable {
    var name: String
    var backing: Backing
    var writePercentage: UInt64
    /// In flight on each queue.
    var depth: Int
    var queueCount: Int
}

/// What one run of one subject gave.
struct Sample {
    var iops: Double
    /// Nil when the server's process is not known.
    var cpuMicrosecondsPerRequest: Double?
    var p50Microseconds: Double
    var p99Microseconds: Double
    /// Which part of the time the measuring thread stood in its CPU's queue, because others ran there.
    var contention: Double
}

/// How a run is made.
struct Conditions {
    var serverCPU: Int
    var clientCPU: Int
    var warmUpMilliseconds: Int
    var milliseconds: Int
    var chainLayout: BlockQueue.ChainLayout
    /// Bytes of the disk that are touched.
    var span: UInt64
    /// Where sockets and logs go.
    var directory: String
    /// Whether the client keeps an inflight region, as QEMU does.
    var usesInflight = true

    /// Descriptors of each ring: a direct chain has three.
    func queueSize(_ point: Point) -> Int {
        var size = 128
        while size < 3 * point.depth { size *= 2 }
        return size
    }
}

/// Starts a subject, drives it, stops it.
func measure(_ subject: Subject, _ point: Point, _ conditions: Conditions, seed: UInt64) throws -> Sample {
    let size = conditions.queueSize(point)
    let server = try Server(
        subject, point.backing, queueCount: point.queueCount, queueSize: size, cpu: conditions.serverCPU,
        directory: conditions.directory)
    try pinCurrentThread(toCPU: conditions.clientCPU)
    var behaviour = FrontendBehaviour.qemu
    behaviour.usesInflight = conditions.usesInflight
    var frontend = try Frontend.connect(to: server.socketPath, behaviour: behaviour)
    guard frontend.queueCount >= point.queueCount else {
        throw BenchmarkError("\(subject) has \(frontend.queueCount) queues, \(point.queueCount) are needed")
    }
    var options = ThroughputLoad.Options()
    options.seed = seed
    options.depth = point.depth
    options.writePercentage = point.writePercentage
    options.chainLayout = conditions.chainLayout
    options.span = min(conditions.span, try frontend.readBlockConfiguration().capacity * 512)
    let needed = ThroughputLoad.memoryNeeded(options, queueCount: point.queueCount)
    let memory = try GuestMemory(size: needed + point.queueCount * 32 * size + (1 << 16))
    var allocator = GuestAllocator(memory.regions[0])
    let endpoints = try (0..<point.queueCount).map { _ in
        try QueueEndpoint(memory: memory, ring: SplitRing(size: size, in: &allocator))
    }
    var load = ThroughputLoad(
        endpoints, usesEventIndex: frontend.usesEventIndex, options: options, in: &allocator)
    try frontend.start(memory, endpoints)
    load.start()
    _ = try load.measure(milliseconds: conditions.warmUpMilliseconds)
    let before = frontend.backendProcess.flatMap(processTreeCPUNanoseconds)
    let waited = threadWaitNanoseconds()
    let report = try load.measure(milliseconds: conditions.milliseconds)
    let contention = Double(threadWaitNanoseconds() - waited) / Double(report.nanoseconds)
    let after = frontend.backendProcess.flatMap(processTreeCPUNanoseconds)
    try load.drain()
    try frontend.stop()
    server.stop()
    guard report.errors == 0, report.requests > 0 else {
        throw BenchmarkError("\(subject): \(report.errors) of \(report.requests) requests failed")
    }
    var cpu: Double?
    if let before, let after { cpu = Double(after - before) / 1000 / Double(report.requests) }
    return Sample(
        iops: report.requestsPerSecond, cpuMicrosecondsPerRequest: cpu,
        p50Microseconds: Double(report.latency.quantile(0.5)) / 1000,
        p99Microseconds: Double(report.latency.quantile(0.99)) / 1000, contention: contention)
}

/// The better of io_uring and preadv on the file itself, where the server would run.
func measureCeiling(_ path: String, _ point: Point, _ conditions: Conditions, seed: UInt64) throws -> Sample {
    let file = try openFile(path, O_RDWR)
    try pinCurrentThread(toCPU: conditions.serverCPU)
    var options = ceiling_options(
        fd: file.number, depth: UInt32(point.depth), request_size: 4096,
        write_percentage: UInt32(point.writePercentage), span: conditions.span, seed: seed,
        milliseconds: UInt64(conditions.milliseconds))
    let (start, waited) = (monotonicNanoseconds(), threadWaitNanoseconds())
    var ring = ceiling_result()
    var calls = ceiling_result()
    let errors = unsafe [ceiling_uring(&options, &ring), ceiling_preadv(&options, &calls)]
    if let error = errors.first(where: { $0 != 0 }) {
        throw SystemError(cannot: "measure", path, Errno(rawValue: -error))
    }
    let best = [ring, calls].map { Double($0.requests) * 1e9 / Double($0.nanoseconds) }.max() ?? 0
    let contention = Double(threadWaitNanoseconds() - waited) / Double(monotonicNanoseconds() - start)
    // One thread that never waits: its CPU time is the time.
    let each = 1e6 / best
    return Sample(
        iops: best, cpuMicrosecondsPerRequest: each, p50Microseconds: each * Double(point.depth),
        p99Microseconds: each * Double(point.depth), contention: contention)
}

/// How fast the client alone is: an ideal peer answers on the same CPU.
func measureClient(_ conditions: Conditions, depth: Int) throws -> Double {
    try pinCurrentThread(toCPU: conditions.clientCPU)
    let memory = try GuestMemory(size: 8 << 20)
    var allocator = GuestAllocator(memory.regions[0])
    let ring = SplitRing(size: 1024, in: &allocator)
    let endpoint = try QueueEndpoint(memory: memory, ring: ring)
    var peer = LoopbackPeer(endpoint)
    var queue = BlockQueue(
        DriverQueue(endpoint, usesEventIndex: false), depth: depth, layout: conditions.chainLayout, in: &allocator)
    let buffer = allocator.allocate(4096, alignment: 4096)
    var random = SeededGenerator(seed: 1)
    var latency = LatencyHistogram()
    var requests = 0
    let start = monotonicNanoseconds()
    var now = start
    while now < start + UInt64(conditions.milliseconds) * 1_000_000 {
        while queue.hasRoom {
            let sector = random.next(below: conditions.span / 4096) * 8
            queue.submit(
                BlockRequest(.read, sector: sector, dataAddress: buffer, dataLength: 4096, token: now))
        }
        queue.publish()
        _ = peer.answerAll()
        now = monotonicNanoseconds()
        while let completion = try queue.nextCompletion() {
            latency.record(now - completion.token)
            requests += 1
        }
    }
    return Double(requests) * 1e9 / Double(now - start)
}

/// Why a benchmark says nothing.
struct BenchmarkError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) {
        self.description = description
    }
}
