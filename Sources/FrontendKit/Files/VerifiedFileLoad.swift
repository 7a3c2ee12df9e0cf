internal import CWire
internal import Platform
internal import VhostUser

/// Many clients of a file system at once, each in a directory of its own, each with one operation under way: what every
/// answer must be is known beforehand.
///
/// At its end it looks at everything again, and forgets it.
public struct VerifiedFileLoad: ~Copyable {
    public struct Options: Sendable {
        public var seed: UInt64
        public var queueCount = 1
        /// Clients for each queue.
        public var clients = 16
        /// Names are removed and moved only where they are, as a kernel does that has looked them up. Debian 12's
        /// virtiofsd says EIO of others.
        public var looksFirst = false
        /// Files besides, made before the load begins, which the driver knows all the time.
        public var knownNodes = 0
        /// Ends after this many requests, the last look not counted; nil: no limit.
        public var requestLimit: Int? = 20_000
        /// How long nothing may complete before the load gives up, in milliseconds.
        public var stallLimit = 30_000

        public init(seed: UInt64) { self.seed = seed }
    }

    private var frontend: Frontend
    private var priority: FileQueue
    private var lanes: OwnedArray<VerifiedFileLane>
    private let poller: Poller
    private let options: Options
    private let monitor: LoadMonitor
    private var report: FileLoadReport
    private var outstanding = 0
    private var submitted = 0
    private var lastProgress: UInt64 = 0
    private var forgotten: [(node: UInt64, times: UInt64)] = []
    private var isSweeping = false

    /// Connects to a back-end and makes a directory for each client.
    ///
    /// - Throws: `FrontendError`, `SystemError` or `FileError`.
    public init(
        connectingTo path: String, _ options: Options, monitor: LoadMonitor = LoadMonitor(),
        behaviour: FrontendBehaviour = .qemuFileSystem
    ) throws {
        var asked = FileMount.Options()
        asked.behaviour = behaviour
        // One more queue than there are loads: the client keeps the first.
        asked.queueCount = options.queueCount
        asked.queueSize = 256
        let layout = FileQueue.Layout(
            depth: options.clients, argumentCapacity: 1024, dataCapacity: FileLoadModel.sizeLimit)
        asked.layout = layout
        asked.otherMemory = options.queueCount * layout.memoryNeeded
        var mount = try FileMount(connectingTo: path, asked)
        var models: [[FileLoadModel]] = []
        for queue in 0..<options.queueCount {
            models.append(
                try (0..<options.clients).map { client throws(FileError) in
                    let name = Array("client-\(queue)-\(client)".utf8)
                    let made = try mount.client.makeDirectory(name, in: FileClient.root, mode: 0o755)
                    let open = try mount.client.openDirectory(made.node)
                    var model = FileLoadModel(
                        directory: made.node, handle: open.handle,
                        seed: options.seed &+ UInt64(queue * 1000 + client + 1))
                    model.hasLongSetXattr = mount.client.limits?.flags.contains(.extendedSetXattr) == true
                    model.looksFirst = options.looksFirst
                    return model
                })
        }
        try Self.makeNodes(options.knownNodes, &mount.client)
        let poller = try Poller()
        for (index, endpoint) in mount.endpoints.enumerated() {
            try poller.watch(endpoint.call.fd.number, token: UInt64(index), edge: true)
        }
        self.init(mount, options, layout, models, monitor, poller)
    }

    private static func makeNodes(_ count: Int, _ client: inout FileClient) throws(FileError) {
        var directory: UInt64 = 0
        for number in 0..<count {
            if number % 1000 == 0 {
                let name = Array("known-\(number / 1000)".utf8)
                directory = try client.makeDirectory(name, in: FileClient.root, mode: 0o755).node
            }
            _ = try client.makeNode(Array("\(number)".utf8), in: directory, mode: 0o100644)
        }
    }

    private init(
        _ mount: consuming FileMount, _ options: Options, _ layout: FileQueue.Layout, _ models: [[FileLoadModel]],
        _ monitor: LoadMonitor, _ poller: consuming Poller
    ) {
        self.options = options
        self.monitor = monitor
        self.poller = poller
        report = FileLoadReport(seed: options.seed)
        var made = OwnedStack<FileQueue>()
        for index in (1...options.queueCount).reversed() where index > 1 { made.push(mount.makeQueue(index, layout)) }
        made.push(mount.client.requests)
        priority = mount.client.priority
        frontend = mount.frontend
        lanes = OwnedArray(count: options.queueCount) { index in
            VerifiedFileLane(queue: made.pop(), models: models[index])
        }
    }

    /// The process that serves; nil where it cannot be known.
    public var backendProcess: Int32? { frontend.backendProcess }

    /// Runs to the end, and stops the device.
    ///
    /// - Throws: what makes going on pointless. A wrong answer does not: it is in the report.
    public mutating func run() throws(LoadError) -> FileLoadReport {
        let start = monotonicNanoseconds()
        lastProgress = start
        beginIdle()
        while outstanding > 0 || hasIdle { try turn() }
        monitor.sweepBegins()
        isSweeping = true
        for lane in 0..<lanes.count {
            for client in 0..<options.clients {
                lanes[lane].sweeps[client] = lanes[lane].models[client].sweep
                lanes[lane].isIdle[client] = true
            }
        }
        beginIdle()
        while outstanding > 0 { try turn() }
        try forgetAll()
        report.nanoseconds = monotonicNanoseconds() - start
        return report
    }

    /// Forgets whatever it knows but the clients' directories and what it has known all the time.
    private mutating func forgetAll() throws(LoadError) {
        for lane in 0..<lanes.count {
            for client in 0..<options.clients {
                lanes[lane].models[client].forgetAll()
                forgotten += lanes[lane].models[client].forgotten
                lanes[lane].models[client].forgotten = []
            }
        }
        lastProgress = monotonicNanoseconds()
        try sendForgets()
        while !forgotten.isEmpty || priority.outstanding > 0 {
            try wait()
            try sendForgets()
        }
        let clients = options.queueCount * options.clients
        report.knownNodes = clients + options.knownNodes + (options.knownNodes + 999) / 1000
        report.openFiles = clients
    }

    /// Whether the back-end is still there: asks it something.
    public borrowing func checkConnection() throws(FrontendError) { _ = try frontend.ask(.getFeatures) }

    // MARK: Loop

    private mutating func turn() throws(LoadError) {
        var count = 0
        for lane in 0..<lanes.count { count += try takeCompletions(lane) }
        try sendForgets()
        beginIdle()
        if count == 0, outstanding > 0 { try wait() }
    }

    private mutating func takeCompletions(_ lane: Int) throws(LoadError) -> Int {
        var count = 0
        while let completion = try next(lane) {
            finish(completion, lane)
            count += 1
        }
        guard count > 0 else { return 0 }
        let now = monotonicNanoseconds()
        report.longestPause = max(report.longestPause, now - lastProgress)
        monitor.note(pause: now - lastProgress)
        lastProgress = now
        outstanding -= count
        monitor.add(count)
        return count
    }

    private mutating func next(_ lane: Int) throws(LoadError) -> FileCompletion? {
        do throws(FileViolation) {
            return try lanes[lane].queue.nextCompletion()
        } catch {
            throw .files(error, queue: lane + 1)
        }
    }

    private mutating func finish(_ completion: FileCompletion, _ lane: Int) {
        let client = Int(completion.token)
        let step = lanes[lane].steps[client]
        let answer = unsafe Array(lanes[lane].queue.answer(completion))
        lanes[lane].queue.release(completion.slot)
        let now = monotonicNanoseconds()
        let began = lanes[lane].began[client]
        monitor.completed(requestOf: began, at: now)
        report.note(completion.opcode, took: now - began, isRefused: completion.error != nil)
        if let step, let problem = lanes[lane].models[client].take(step, completion.error, answer) {
            report.find("client \(client) of queue \(lane + 1): \(problem)")
        }
        forgotten += lanes[lane].models[client].forgotten
        lanes[lane].models[client].forgotten = []
        lanes[lane].isIdle[client] = true
    }

    private mutating func wait() throws(LoadError) {
        var mustWait = true
        for lane in 0..<lanes.count where !lanes[lane].queue.requestInterrupt() { mustWait = false }
        if priority.outstanding > 0, !priority.requestInterrupt() { mustWait = false }
        if mustWait, poller.wait(milliseconds: 250) == 0, hasCompletion, poller.wait(milliseconds: 1000) == 0 {
            report.missedInterrupts += 1
        }
        for lane in 0..<lanes.count { lanes[lane].queue.silenceInterrupts() }
        priority.silenceInterrupts()
        guard monotonicNanoseconds() - lastProgress < UInt64(options.stallLimit) * 1_000_000 else {
            throw .stalled(outstanding: outstanding, milliseconds: options.stallLimit)
        }
    }

    private var hasCompletion: Bool {
        for lane in 0..<lanes.count where lanes[lane].queue.hasCompletion { return true }
        return false
    }

    // MARK: Requests

    private var isOver: Bool {
        monitor.isStopRequested || options.requestLimit.map { submitted >= $0 } ?? false
    }

    private var hasIdle: Bool { !isOver }

    /// Every client that has nothing under way goes on.
    private mutating func beginIdle() {
        for lane in 0..<lanes.count {
            var count = 0
            for client in 0..<options.clients where lanes[lane].isIdle[client] {
                guard let step = nextStep(client, lane) else { continue }
                begin(step, client, lane)
                count += 1
            }
            guard count > 0 else { continue }
            lanes[lane].queue.publish()
            monitor.add(published: count)
        }
    }

    private mutating func nextStep(_ client: Int, _ lane: Int) -> FileLoadStep? {
        if isSweeping {
            guard !lanes[lane].sweeps[client].isEmpty else { return nil }
            return lanes[lane].sweeps[client].removeFirst()
        }
        guard !isOver else { return nil }
        // Something is always possible.
        while true {
            let step = lanes[lane].models[client].nextStep()
            if lanes[lane].models[client].isPossible(step) { return step }
        }
    }

    private mutating func begin(_ step: FileLoadStep, _ client: Int, _ lane: Int) {
        let slot = lanes[lane].queue.reserve()
        var call = lanes[lane].request(step, client, in: slot)
        call.token = UInt64(client)
        lanes[lane].steps[client] = step
        lanes[lane].isIdle[client] = false
        lanes[lane].began[client] = monotonicNanoseconds()
        lanes[lane].queue.submit(call, in: slot)
        outstanding += 1
        submitted += 1
    }

    private mutating func sendForgets() throws(LoadError) {
        do throws(FileViolation) {
            while let completion = try priority.nextCompletion() { priority.release(completion.slot) }
        } catch {
            throw .files(error, queue: 0)
        }
        var count = 0
        while priority.hasRoom, let (node, times) = forgotten.popLast() {
            let slot = priority.reserve()
            let wire = wire_fuse_forget_in(nlookup: times)
            unsafe priority.arguments(slot).storeBytes(of: wire, as: wire_fuse_forget_in.self)
            priority.submit(FileCall(.forget, node: node, argumentCount: 8, answer: .never), in: slot)
            count += 1
        }
        if count > 0 { priority.publish() }
    }
}

/// A queue and its clients.
struct VerifiedFileLane: ~Copyable {
    var queue: FileQueue
    var models: [FileLoadModel]
    var steps: [FileLoadStep?]
    var began: [UInt64]
    var sweeps: [[FileLoadStep]]
    var isIdle: [Bool]

    init(queue: consuming FileQueue, models: [FileLoadModel]) {
        self.queue = queue
        self.models = models
        steps = models.map { _ in nil }
        began = models.map { _ in 0 }
        sweeps = models.map { _ in [] }
        isIdle = models.map { _ in true }
    }

    mutating func request(_ step: FileLoadStep, _ client: Int, in slot: Int) -> FileCall {
        models[client].request(step, in: slot, of: &queue)
    }
}

/// What a verifying load of a file system found out.
public struct FileLoadReport: Sendable, CustomStringConvertible {
    /// How many findings are described in words.
    public static let findingLimit = 16

    public let seed: UInt64
    /// Requests that completed, by what they asked for.
    public private(set) var requests: [FileOpcode: Int] = [:]
    /// Of those, ended with an error number, as they had to.
    public private(set) var refused = 0
    /// Answers that were not what they had to be.
    public private(set) var mismatches = 0
    /// The first of them, one sentence each.
    public private(set) var findings: [String] = []
    /// Completions for which an interrupt was asked and did not come within a second.
    public internal(set) var missedInterrupts = 0
    /// From submission until the completion was seen.
    public private(set) var latency = LatencyHistogram()
    /// The longest time without any completion while requests were outstanding, in nanoseconds.
    public internal(set) var longestPause: UInt64 = 0
    public internal(set) var nanoseconds: UInt64 = 0
    /// What the driver knows in the end, when it has forgotten all else: nodes, the root not counted, and open files.
    public internal(set) var knownNodes = 0
    public internal(set) var openFiles = 0

    init(seed: UInt64) { self.seed = seed }

    public var total: Int { requests.values.reduce(0, +) }

    public var isClean: Bool { mismatches == 0 && missedInterrupts == 0 }

    mutating func note(_ opcode: FileOpcode, took nanoseconds: UInt64, isRefused: Bool) {
        requests[opcode, default: 0] += 1
        if isRefused { refused += 1 }
        latency.record(nanoseconds)
    }

    mutating func find(_ sentence: String) {
        mismatches += 1
        if findings.count < Self.findingLimit { findings.append(sentence) }
    }

    public var description: String {
        let kinds = requests.sorted { $0.value > $1.value }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        let head =
            "seed \(seed): \(total) requests in \(nanoseconds / 1_000_000) ms, \(refused) refused as they had to be, "
            + "\(mismatches) mismatches, \(missedInterrupts) missed interrupts, p50 "
            + "\(latency.quantile(0.5) / 1000) us, p99 \(latency.quantile(0.99) / 1000) us"
        return ([head, "  \(kinds)"] + findings.map { "  \($0)" }).joined(separator: "\n")
    }
}
