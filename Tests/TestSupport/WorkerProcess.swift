internal import Glibc
public import Platform

/// A real baton-worker, built beside the tests.
public struct WorkerProcess: ~Copyable, Sendable {
    public var program: Program
    /// Where it listens.
    public let socketPath: String

    /// The program: BATON_WORKER in the environment, or what the build has put beside the test bundle.
    public static var executable: String {
        if let path = unsafe getenv("BATON_WORKER") { return unsafe String(cString: path) }
        // .../debug/batonPackageTests.xctest
        let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? CommandLine.arguments[0]
        return bundle.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
            + "/baton-worker"
    }

    /// What every worker of the tests is told besides: BATON_WORKER_OPTIONS in the environment, separated by spaces.
    /// To have
    /// all that is tested in the filter of a worker on its own: `--sandbox=on`.
    private static var commonArguments: [String] {
        guard let text = unsafe getenv("BATON_WORKER_OPTIONS") else { return [] }
        return unsafe String(cString: text).split(separator: " ").map { String($0) }
    }

    /// Starts it and waits until it listens.
    ///
    /// - Parameter arguments: all but the socket's path.
    /// - Throws: what it printed, when it ended instead.
    public init(_ arguments: [String], in directory: borrowing TemporaryDirectory) throws(SystemError) {
        let socketPath = directory.file("worker.sock")
        var program = try Program(
            Self.executable, ["--socket-path=\(socketPath)"] + Self.commonArguments + arguments, in: directory)
        try program.waitForFile(socketPath)
        self.program = program
        self.socketPath = socketPath
    }

    /// What its open descriptors lead to, in order.
    public var descriptors: [String] {
        TestFile.names(in: "/proc/\(program.pid)/fd").compactMap { name in
            unsafe withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
                let count = unsafe readlink(
                    "/proc/\(program.pid)/fd/\(name)", buffer.baseAddress!, buffer.count)
                return count < 0 ? nil : unsafe String(decoding: buffer.prefix(count), as: UTF8.self)
            }
        }.sorted()
    }

    /// How many descriptors it has open.
    public var descriptorCount: Int { descriptors.count }

    /// Times that its threads have given up a CPU to wait for something. A thread that has the program's name and is
    /// not the first one is the thread sanitizer's, which wakes ten times a second: all of the worker's have their own.
    public var sleeps: Int {
        var sum = 0
        let first = readSmallFile("/proc/\(program.pid)/comm")
        for thread in TestFile.names(in: "/proc/\(program.pid)/task") {
            let folder = "/proc/\(program.pid)/task/\(thread)"
            guard thread == "\(program.pid)" || readSmallFile("\(folder)/comm") != first else { continue }
            for line in (readSmallFile("\(folder)/status") ?? "").split(separator: "\n")
            where line.hasPrefix("voluntary_ctxt_switches:") {
                sum += line.split(separator: "\t").last.flatMap { Int($0) } ?? 0
            }
        }
        return sum
    }

    /// What the kernel says of a thread (/proc/PID/task/TID/status), found by its name.
    public func status(ofThread name: String) -> String? {
        threads.first { $0.hasPrefix("Name:\t\(name)\n") }
    }

    private var threads: [String] {
        TestFile.names(in: "/proc/\(program.pid)/task").compactMap { thread in
            readSmallFile("/proc/\(program.pid)/task/\(thread)/status")
        }
    }
}

/// Runs a program to its end.
///
/// - Returns: its exit code (-1 when a signal ended it) and everything it printed.
public func run(
    _ name: String, _ arguments: [String], in directory: borrowing TemporaryDirectory
) throws(SystemError) -> (code: Int32, output: String) {
    var program = try Program(name, arguments, in: directory)
    switch program.wait(milliseconds: 60_000) {
    case .exited(let code): return (code, program.output)
    case .killed, nil: return (-1, program.output)
    }
}
