internal import CWire
internal import Platform

/// What a `FileThroughputLoad` does over and over.
public enum FileBenchmark: String, Sendable, CaseIterable {
    case lookup
    case getattr
    /// CREATE, FLUSH, RELEASE, UNLINK and FORGET of a new name.
    case createUnlink = "create+unlink"
    /// OPEN, FLUSH and RELEASE.
    case openClose = "open+close"
    /// All of a directory of `FileThroughputLoad.listedFiles` names.
    case readdir
    case read4k = "read-4k"
    case read1m = "read-1m"
    case write4k = "write-4k"
    case write1m = "write-1m"

    var transferSize: Int {
        switch self {
        case .read4k, .write4k: 4096
        case .read1m, .write1m: 1 << 20
        default: 8192
        }
    }
}

/// The same operation as fast as a file system takes it: for benchmarks. Looks at the error of each answer, not at what
/// it says.
///
/// It works in the tree that `FileThroughputLoad.files` describes. One thread polls all queues and never sleeps, so
/// that it is not the client's wake-up that is measured.
public struct FileThroughputLoad: ~Copyable {
    public struct Options: Sendable {
        public var benchmark: FileBenchmark
        public var seed: UInt64 = 1
        /// Operations under way on each queue.
        public var depth = 1
        public var queueCount = 1
        /// Bytes of the file that is read and written, from its beginning.
        public var span: UInt64 = 256 << 20
        /// How long nothing may complete before the load gives up, in milliseconds.
        public var stallLimit = 30_000

        public init(_ benchmark: FileBenchmark) { self.benchmark = benchmark }
    }

    /// Files in the shared directory that are looked up and opened: "file-0" and so on.
    public static let files = 256
    /// Files in its directory "list": few enough for one READDIR of 8 KiB.
    public static let listedFiles = 100

    private var priority: FileQueue
    private var frontend: Frontend
    private var lanes: OwnedArray<FileLane>
    private let options: Options
    private var random: SeededGenerator
    private var report = ThroughputReport()
    private let nodes: [UInt64]
    private let data: (node: UInt64, handle: UInt64)
    private let list: (node: UInt64, handle: UInt64)

    /// Connects to a back-end and finds its way in the shared directory.
    public init(connectingTo path: String, _ options: Options) throws {
        var asked = FileMount.Options()
        asked.queueCount = options.queueCount
        asked.queueSize = 1024
        let layout = FileQueue.Layout(
            depth: options.depth, argumentCapacity: 512, dataCapacity: options.benchmark.transferSize)
        asked.layout = layout
        asked.otherMemory = options.queueCount * layout.memoryNeeded
        var mount = try FileMount(connectingTo: path, asked)
        let nodes = try (0..<Self.files).map { index throws(FileError) in
            try mount.client.lookUp(Array("file-\(index)".utf8), in: FileClient.root).node
        }
        let file = try mount.client.lookUp(Array("data".utf8), in: FileClient.root).node
        let opened = try mount.client.open(file, flags: 2)
        let directory = try mount.client.lookUp(Array("list".utf8), in: FileClient.root).node
        let listed = try mount.client.openDirectory(directory)
        self.init(
            mount, options, layout, nodes: nodes, data: (file, opened.handle), list: (directory, listed.handle))
    }

    private init(
        _ mount: consuming FileMount, _ options: Options, _ layout: FileQueue.Layout, nodes: [UInt64],
        data: (node: UInt64, handle: UInt64), list: (node: UInt64, handle: UInt64)
    ) {
        self.nodes = nodes
        self.data = data
        self.list = list
        self.options = options
        random = SeededGenerator(seed: options.seed)
        let (count, depth) = (options.queueCount, options.depth)
        var made = OwnedStack<FileQueue>()
        for index in (1...count).reversed() where index > 1 { made.push(mount.makeQueue(index, layout)) }
        made.push(mount.client.requests)
        priority = mount.client.priority
        frontend = mount.frontend
        lanes = OwnedArray(count: count) { index in
            FileLane(queue: made.pop(), tasks: Array(repeating: FileTask(), count: depth), index: index)
        }
    }

    /// The process that serves; nil where it cannot be known.
    public var backendProcess: Int32? { frontend.backendProcess }

    /// Begins operations on all queues. Then `measure` as often as wanted, and `drain`.
    public mutating func start() throws(FileError) {
        let now = monotonicNanoseconds()
        for lane in 0..<lanes.count {
            for task in 0..<options.depth {
                lanes[lane].tasks[task] = FileTask(began: now)
                submit(task, lane)
            }
            lanes[lane].queue.publish()
        }
    }

    /// Keeps the queues busy for a time and reports what completed in it: whole operations, not requests.
    public mutating func measure(milliseconds: Int) throws -> ThroughputReport {
        report = ThroughputReport()
        let start = monotonicNanoseconds()
        let end = start + UInt64(milliseconds) * 1_000_000
        var now = start
        var lastProgress = start
        while now < end {
            now = monotonicNanoseconds()
            for lane in 0..<lanes.count where try advance(lane, now, goesOn: true) { lastProgress = now }
            try checkStall(since: lastProgress, now)
        }
        report.nanoseconds = monotonicNanoseconds() - start
        return report
    }

    /// Ends what is under way.
    public mutating func drain() throws {
        var lastProgress = monotonicNanoseconds()
        for lane in 0..<lanes.count {
            while lanes[lane].queue.outstanding > 0 {
                let now = monotonicNanoseconds()
                if try advance(lane, now, goesOn: false) { lastProgress = now }
                try checkStall(since: lastProgress, now)
            }
        }
        try frontend.stop()
    }

    private func checkStall(since last: UInt64, _ now: UInt64) throws(LoadError) {
        guard now > last + UInt64(options.stallLimit) * 1_000_000 else { return }
        throw .stalled(outstanding: options.depth * lanes.count, milliseconds: options.stallLimit)
    }

    /// Takes completions of a queue, and goes on with their operations.
    private mutating func advance(_ lane: Int, _ now: UInt64, goesOn: Bool) throws(FileError) -> Bool {
        var hasProgress = false
        while let completion = try nextCompletion(lane) {
            hasProgress = true
            let task = Int(completion.token)
            if completion.error != nil { report.errors += 1 }
            unsafe try lanes[lane].tasks[task].take(completion, lanes[lane].queue.answer(completion))
            lanes[lane].queue.release(completion.slot)
            let isOver = lanes[lane].tasks[task].step >= steps
            if isOver {
                let began = lanes[lane].tasks[task].began
                report.latency.record(now > began ? now - began : 0)
                report.requests += 1
                if options.benchmark == .createUnlink { try forget(lanes[lane].tasks[task].node) }
                guard goesOn else { continue }
                lanes[lane].tasks[task] = FileTask(began: now)
            }
            submit(task, lane)
        }
        if hasProgress { lanes[lane].queue.publish() }
        return hasProgress
    }

    private mutating func nextCompletion(_ lane: Int) throws(FileError) -> FileCompletion? {
        do throws(FileViolation) {
            return try lanes[lane].queue.nextCompletion()
        } catch {
            throw .violation(error)
        }
    }

    /// Requests of one operation.
    private var steps: Int {
        switch options.benchmark {
        case .createUnlink: 4
        case .openClose: 3
        default: 1
        }
    }

    private mutating func forget(_ node: UInt64) throws(FileError) {
        do throws(FileViolation) {
            while let completion = try priority.nextCompletion() { priority.release(completion.slot) }
        } catch {
            throw .violation(error)
        }
        // The queue is longer than what a back-end leaves lying; one more node to know does not matter.
        guard priority.hasRoom else { return }
        let slot = priority.reserve()
        unsafe priority.arguments(slot).storeBytes(
            of: wire_fuse_forget_in(nlookup: 1), as: wire_fuse_forget_in.self)
        priority.submit(FileCall(.forget, node: node, argumentCount: 8, answer: .never), in: slot)
        priority.publish()
    }

    // MARK: Requests

    /// The next request of an operation.
    private mutating func submit(_ task: Int, _ lane: Int) {
        let slot = lanes[lane].queue.reserve()
        let state = lanes[lane].tasks[task]
        var call: FileCall
        switch (options.benchmark, state.step) {
        case (.lookup, _):
            let count = write("file-", random.next(below: UInt64(Self.files)), slot, lane)
            call = FileCall(.lookup, node: FileClient.root, argumentCount: count, answer: .small(128))
        case (.getattr, _):
            let node = nodes[Int(random.next(below: UInt64(Self.files)))]
            call = FileCall(.getAttributes, node: node, answer: .small(104))
            put(wire_fuse_getattr_in(), &call, slot, lane)
        case (.openClose, 0):
            let node = nodes[Int(random.next(below: UInt64(Self.files)))]
            lanes[lane].tasks[task].node = node
            call = FileCall(.open, node: node, answer: .small(16))
            put(wire_fuse_open_in(flags: 2, open_flags: 0), &call, slot, lane)
        case (.createUnlink, 0):
            call = FileCall(.create, node: FileClient.root, answer: .small(144))
            put(wire_fuse_create_in(flags: 0o102, mode: 0o100644, umask: 0o22, open_flags: 0), &call, slot, lane)
            call.argumentCount += write("new-", lanes[lane].name(of: task), slot, lane, at: call.argumentCount)
        case (.openClose, 1), (.createUnlink, 1):
            call = FileCall(.flush, node: state.node)
            put(wire_fuse_flush_in(fh: state.handle, unused: 0, padding: 0, lock_owner: 1), &call, slot, lane)
        case (.openClose, _), (.createUnlink, 2):
            call = FileCall(.release, node: state.node)
            put(
                wire_fuse_release_in(fh: state.handle, flags: 2, release_flags: 0, lock_owner: 0), &call, slot, lane)
        case (.createUnlink, _):
            let count = write("new-", lanes[lane].name(of: task), slot, lane)
            call = FileCall(.unlink, node: FileClient.root, argumentCount: count)
        case (.readdir, _):
            call = FileCall(.readDirectory, node: list.node, answer: .data(options.benchmark.transferSize))
            put(FileClient.reading(list.handle, from: 0, count: options.benchmark.transferSize), &call, slot, lane)
        case (.read4k, _), (.read1m, _), (.write4k, _), (.write1m, _):
            call = transfer(slot, lane)
        }
        call.token = UInt64(task)
        lanes[lane].queue.submit(call, in: slot)
    }

    private mutating func transfer(_ slot: Int, _ lane: Int) -> FileCall {
        let size = options.benchmark.transferSize
        let offset = random.next(below: options.span / UInt64(size)) * UInt64(size)
        let reads = options.benchmark == .read4k || options.benchmark == .read1m
        var call = FileCall(reads ? .read : .write, node: data.node)
        if reads {
            call.answer = .data(size)
            put(FileClient.reading(data.handle, from: offset, count: size, flags: 2), &call, slot, lane)
        } else {
            call.dataCount = size
            call.answer = .small(8)
            put(
                wire_fuse_write_in(
                    fh: data.handle, offset: offset, size: UInt32(size), write_flags: 0, lock_owner: 0, flags: 2,
                    padding: 0), &call, slot, lane)
        }
        return call
    }

    private borrowing func put<Argument: BitwiseCopyable>(
        _ argument: Argument, _ call: inout FileCall, _ slot: Int, _ lane: Int
    ) {
        unsafe lanes[lane].queue.arguments(slot).storeBytes(of: argument, as: Argument.self)
        call.argumentCount = MemoryLayout<Argument>.size
    }

    /// Writes a name that ends with a number; returns how many bytes it has, with its zero.
    private borrowing func write(
        _ prefix: StaticString, _ number: UInt64, _ slot: Int, _ lane: Int, at offset: Int = 0
    ) -> Int {
        let place = unsafe lanes[lane].queue.arguments(slot)
        let length = prefix.utf8CodeUnitCount
        unsafe (place.baseAddress! + offset).copyMemory(from: prefix.utf8Start, byteCount: length)
        var (scale, digits) = (1 as UInt64, 1)
        while number / scale >= 10 { (scale, digits) = (scale * 10, digits + 1) }
        for index in 0..<digits {
            unsafe place[offset + length + index] = UInt8(ascii: "0") + UInt8(number / scale % 10)
            scale = max(1, scale / 10)
        }
        unsafe place[offset + length + digits] = 0
        return length + digits + 1
    }
}

/// A queue and the operations that are under way on it.
struct FileLane: ~Copyable {
    var queue: FileQueue
    var tasks: [FileTask]
    let index: Int

    /// The number of the name that a task makes.
    func name(of task: Int) -> UInt64 { UInt64(index * 65536 + task) }
}

/// An operation under way.
struct FileTask {
    var began: UInt64 = 0
    /// Requests that have completed.
    var step = 0
    var node: UInt64 = 0
    var handle: UInt64 = 0

    mutating func take(_ completion: FileCompletion, _ answer: UnsafeRawBufferPointer) throws(FileError) {
        step += 1
        guard completion.error == nil else { return }
        if completion.opcode == .create {
            guard completion.count == 144 else { throw .malformed(.create, "it has \(completion.count) bytes") }
            node = unsafe answer.loadUnaligned(as: wire_fuse_entry_out.self).nodeid
            handle = unsafe answer.loadUnaligned(fromByteOffset: 128, as: wire_fuse_open_out.self).fh
        } else if completion.opcode == .open {
            guard completion.count == 16 else { throw .malformed(.open, "it has \(completion.count) bytes") }
            handle = unsafe answer.loadUnaligned(as: wire_fuse_open_out.self).fh
        }
    }
}
