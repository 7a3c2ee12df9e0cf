internal import FrontendKit
internal import Glibc
internal import Platform

/// What a run's front-end agrees on with the worker.
struct Variant {
    var isPacked: Bool
    /// The front-end keeps an inflight region.
    var hasLog: Bool

    var behaviour: FrontendBehaviour {
        var behaviour = isPacked ? FrontendBehaviour.qemu.withPackedRings : .qemu
        behaviour.usesInflight = hasLog
        return behaviour
    }
}

/// Runs of the worker under callgrind.
struct Runs {
    let worker: String
    /// Requests that are made available at once.
    let batch: Int
    /// Where socket, output and profile go.
    let directory: String

    static let fileNames = ["cost.sock", "worker.log", "profile"]
    private static let queueSize = 256
    /// How long a worker under callgrind may take for anything, in milliseconds.
    private static let limit: UInt64 = 60_000

    /// Starts a worker, sends batches, ends it.
    ///
    /// - Returns: the instructions that it has executed, in its whole life.
    func count(_ variant: Variant, batches: Int) throws -> Int {
        let paths = Self.fileNames.map { "\(directory)/\($0)" }
        for path in paths { unsafe unlink(path) }
        let number = unsafe open(paths[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard number >= 0 else { throw SystemError(cannot: "open", paths[1], .current) }
        var process = try ChildProcess(
            "valgrind",
            [
                "--tool=callgrind", "--callgrind-out-file=\(paths[2])", "--dump-instr=yes", worker,
                "--socket-path=\(paths[0])", "--backend=null", "--poll-us=0", "--queue-size=\(Self.queueSize)",
            ], output: OwnedFD(owning: number))
        let end = monotonicNanoseconds() + Self.limit * 1_000_000
        while unsafe access(paths[0], F_OK) != 0 {
            guard process.wait(milliseconds: 2) == nil, monotonicNanoseconds() < end else {
                throw CostError("the worker does not listen: \(readSmallFile(paths[1]) ?? "")")
            }
        }
        do {
            try drive(variant, batches: batches, socket: paths[0], process: process.pid)
        } catch {
            throw CostError("\(error); the worker wrote: \(readSmallFile(paths[1]) ?? "nothing")")
        }
        process.send(signal: SIGTERM)
        guard case .exited(code: 0) = process.wait(milliseconds: Int32(Self.limit)) else {
            throw CostError("the worker did not end as it should: \(readSmallFile(paths[1]) ?? "")")
        }
        return try instructions(paths[2])
    }

    private func drive(_ variant: Variant, batches: Int, socket: String, process: Int32) throws {
        let timeouts = FrontendTimeouts(connect: Int32(Self.limit), reply: Int32(Self.limit))
        var frontend = try Frontend.connect(to: socket, behaviour: variant.behaviour, timeouts: timeouts)
        guard frontend.usesPackedRings == variant.isPacked else { throw CostError("it has no packed rings") }
        var options = ThroughputLoad.Options()
        options.depth = batch
        let memory = try GuestMemory(size: ThroughputLoad.memoryNeeded(options, queueCount: 1) + (1 << 16))
        var allocator = GuestAllocator(memory.regions[0])
        let endpoint = try QueueEndpoint(
            memory: memory, ring: SplitRing(size: Self.queueSize, in: &allocator), isPacked: variant.isPacked)
        var load = ThroughputLoad(
            [endpoint], usesEventIndex: frontend.usesEventIndex, options: options, in: &allocator)
        try frontend.start(memory, [endpoint])
        for _ in 0..<batches {
            try waitUntilAsleep(process)
            load.start()
            try load.drain()
        }
        try waitUntilAsleep(process)
        try frontend.stop()
    }

    /// Waits until the thread that serves the queue sleeps in `epoll_wait`: the next batch wakes it, whole.
    private func waitUntilAsleep(_ process: Int32) throws {
        let end = monotonicNanoseconds() + Self.limit * 1_000_000
        while monotonicNanoseconds() < end {
            for thread in threads(of: process) {
                let call = readSmallFile("/proc/\(process)/task/\(thread)/syscall")?.split(separator: " ").first
                if call == "232" || call == "281" { return }
            }
        }
        throw CostError("the worker does not sleep")
    }

    private func threads(of process: Int32) -> [Int32] {
        guard let tasks = unsafe opendir("/proc/\(process)/task") else { return [] }
        defer { unsafe closedir(tasks) }
        var threads: [Int32] = []
        while let entry = unsafe readdir(tasks) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                unsafe tuple.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if let thread = Int32(name) { threads.append(thread) }
        }
        return threads
    }

    /// The sum that callgrind writes at the end.
    private func instructions(_ path: String) throws -> Int {
        guard let file = unsafe fopen(path, "re") else { throw SystemError(cannot: "open", path, .current) }
        defer { unsafe fclose(file) }
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        defer { unsafe free(line) }
        while unsafe getline(&line, &room, file) > 0, let text = unsafe line {
            let words = unsafe String(cString: text).split(whereSeparator: { $0 == " " || $0 == "\n" })
            if words.first == "totals:", words.count > 1, let count = Int(words[1]) { return count }
        }
        throw CostError("callgrind has not written how many instructions there were")
    }
}

/// Why nothing was counted, or too much.
struct CostError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) {
        self.description = description
    }
}
