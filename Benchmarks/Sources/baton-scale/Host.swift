internal import Glibc
internal import Platform

/// A supervisor of our own, and what it is asked.
struct Host: ~Copyable {
    private let directory: String
    private let batonPath: String
    private let output: OwnedFD
    private var supervisor: ChildProcess

    private static let startMilliseconds: UInt64 = 30_000

    init(batond: String, baton: String, worker: String, directory: String) throws {
        let directory = "\(directory)/baton-scale-\(getpid())"
        guard unsafe mkdir(directory, 0o700) == 0 else { throw SystemError(cannot: "make", directory, .current) }
        let number = unsafe open("\(directory)/log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard number >= 0 else { throw SystemError(cannot: "make", "\(directory)/log", .current) }
        let output = OwnedFD(owning: number)
        let socket = "\(directory)/control.sock"
        let supervisor = try ChildProcess(
            batond, ["--control-socket", socket, "--state-directory", "\(directory)/state", "--worker", worker],
            output: output)
        self.directory = directory
        batonPath = baton
        self.output = output
        self.supervisor = consume supervisor
    }

    /// Waits until the supervisor listens.
    func awaitStart() throws {
        try awaitCondition("the supervisor does not listen") {
            unsafe access("\(directory)/control.sock", F_OK) == 0
        }
    }

    /// Runs the operator's command.
    func baton(_ arguments: [String]) throws {
        var process = try ChildProcess(
            batonPath, arguments + ["--control-socket", "\(directory)/control.sock"], output: output)
        guard process.wait() == .exited(code: 0) else {
            throw ScaleError("baton \(arguments.joined(separator: " ")) failed: see \(directory)/log")
        }
    }

    /// Makes a disk on a sparse image.
    ///
    /// - Returns: its socket.
    func makeDisk(_ name: String, queues: Int, queueSize: Int) throws -> String {
        let image = "\(directory)/\(name).img"
        let socket = "\(directory)/\(name).sock"
        let number = unsafe open(image, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard number >= 0 else { throw SystemError(cannot: "make", image, .current) }
        let file = OwnedFD(owning: number)
        guard ftruncate(file.number, 64 << 20) == 0 else { throw SystemError(cannot: "size", image, .current) }
        try baton([
            "create", "disk", name, "--file", image, "--socket", socket, "--queues", "\(queues)", "--queue-size",
            "\(queueSize)",
        ])
        return socket
    }

    /// Waits until each device has a worker and a standby.
    ///
    /// - Returns: the processes of all.
    func awaitStandbys(_ devices: Int) throws -> [Int32] {
        let pid = supervisor.pid
        try awaitCondition("not every device has a standby") { workers(of: pid).count >= 2 * devices }
        // Those that have just been started are still mapping what they were given.
        var usage: UInt64 = 0
        try awaitCondition("the workers do not come to rest") {
            let before = usage
            usage = cpuNanoseconds(workers(of: pid))
            pause(milliseconds: 500)
            return before == usage
        }
        return workers(of: pid)
    }

    private func awaitCondition(_ complaint: String, _ isMet: () -> Bool) throws {
        let end = monotonicNanoseconds() + Self.startMilliseconds * 1_000_000
        while !isMet() {
            guard monotonicNanoseconds() < end else { throw ScaleError("\(complaint): see \(directory)/log") }
            pause(milliseconds: 5)
        }
    }

    /// Ends the supervisor, and the keeper with it when no device is left.
    mutating func stop() {
        supervisor.send(signal: SIGTERM)
        supervisor.wait(milliseconds: 60_000)
    }

    /// After a failure they stay, with the log.
    func removeFiles() {
        for folder in ["\(directory)/state/devices", "\(directory)/state", directory] {
            for name in directoryNames(folder) { unsafe unlink("\(folder)/\(name)") }
            unsafe rmdir(folder)
        }
    }
}

/// The workers that a supervisor has started.
private func workers(of supervisor: Int32) -> [Int32] {
    directoryNames("/proc").compactMap { Int32($0) }.filter { pid in
        // The parent is the fourth field; the name before it may hold anything.
        guard let stat = readSmallFile("/proc/\(pid)/stat"), let end = stat.lastIndex(of: ")") else { return false }
        let fields = stat[end...].split(separator: " ")
        guard fields.count > 2, Int32(fields[2]) == supervisor else { return false }
        return (readSmallFile("/proc/\(pid)/cmdline") ?? "").contains("--custody=")
    }
}

/// Bytes of a process that no other shares.
func privateBytes(_ pid: Int32) -> UInt64 {
    (readSmallFile("/proc/\(pid)/smaps_rollup") ?? "").split(separator: "\n").filter { $0.hasPrefix("Private_") }
        .reduce(0) { sum, line in
            let words = line.split(whereSeparator: \.isWhitespace)
            return sum + (words.count > 1 ? (UInt64(words[1]) ?? 0) << 10 : 0)
        }
}

/// CPU time that processes have used, in nanoseconds: nothing is lost to a clock's tick.
func cpuNanoseconds(_ pids: [Int32]) -> UInt64 {
    var sum: UInt64 = 0
    for pid in pids {
        for task in directoryNames("/proc/\(pid)/task") {
            // schedstat: nanoseconds on the CPU, nanoseconds in the run queue, time slices.
            let text = readSmallFile("/proc/\(pid)/task/\(task)/schedstat") ?? ""
            sum += text.split(separator: " ").first.flatMap { UInt64($0) } ?? 0
        }
    }
    return sum
}
