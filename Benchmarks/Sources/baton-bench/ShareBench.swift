internal import ArgumentParser
internal import FrontendKit
internal import Glibc
internal import Platform

/// Measures virtio-fs back-ends: see `Scripts/bench --share`.
struct ShareBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "share",
        abstract: "Measures virtio-fs back-ends with one client, in turn and in several rounds.",
        discussion: """
            Every run starts the server on one CPU and drives it from another. Printed are medians over the rounds, of \
            whole operations: create+unlink is five requests. A back-end that has fewer queues than are asked for is \
            measured with those it has.
            """)

    @Option(help: ArgumentHelp("Baton's worker; without it Baton is not measured.", valueName: "path"))
    var worker: String?

    @Option(
        help: ArgumentHelp("Also measure it in custody: of batond, baton and baton-worker in here.", valueName: "path"))
    var custody: String?

    @Flag(inversion: .prefixedNo, help: "Measure Debian 12's virtiofsd.")
    var virtiofsd = true

    @Option(help: ArgumentHelp("Only these operations, as they are called in the table.", valueName: "operation"))
    var only: [String] = []

    @Option(help: ArgumentHelp("Only these depths: operations under way on each queue.", valueName: "operations"))
    var depth: [Int] = [1, 16]

    @Option(help: ArgumentHelp("Only these numbers of queues.", valueName: "queues"))
    var queues: [Int] = [1, 4]

    @Option(help: "How often each subject is measured at each point.")
    var rounds = 5

    @Option(help: "Length of one measurement, in milliseconds.")
    var milliseconds = 500

    @Option(help: "The CPU that servers run on.")
    var serverCPU = 0

    @Option(help: "The CPU that the client runs on.")
    var clientCPU = 1

    @Option(help: ArgumentHelp("Where the tree, sockets and logs go.", valueName: "path"))
    var directory = "/var/tmp"

    @Option(help: ArgumentHelp("Also write the rows as JSON.", valueName: "file"))
    var json: String?

    func validate() throws {
        guard rounds > 0, milliseconds > 0, (depth + queues).allSatisfy({ $0 > 0 }), depth.allSatisfy({ $0 <= 128 })
        else { throw ValidationError("Nothing would be measured, or more than a ring holds.") }
        guard only.allSatisfy({ FileBenchmark(rawValue: $0) != nil }) else {
            let names = FileBenchmark.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("The operations are \(names).")
        }
        guard serverCPU != clientCPU, max(serverCPU, clientCPU) < onlineCPUCount() else {
            throw ValidationError("Server and client need a CPU each; this machine has \(onlineCPUCount()).")
        }
    }

    func run() throws {
        let place = "\(directory)/baton-share-bench-\(getpid())"
        defer { removeTree(place) }
        try makeTree(place)
        let conditions = Conditions(
            serverCPU: serverCPU, clientCPU: clientCPU, warmUpMilliseconds: 100, milliseconds: milliseconds,
            chainLayout: .indirect, span: 256 << 20, directory: place)
        print(Row.heading)
        var rows: [Row] = []
        for benchmark in FileBenchmark.allCases where only.isEmpty || only.contains(benchmark.rawValue) {
            for queueCount in queues {
                for depth in depth {
                    let point = Point(
                        name: benchmark.rawValue, backing: .null, writePercentage: 0, depth: depth,
                        queueCount: queueCount)
                    rows += try measureAll(benchmark, point, conditions)
                }
            }
        }
        printVerdict(rows)
        if let json { try writeJSON(rows, to: json) }
    }

    private var subjects: [ShareSubject] {
        (worker.map { [.baton($0)] } ?? []) + (custody.map { [.custody($0)] } ?? [])
            + (virtiofsd ? [.virtiofsd] : [])
    }

    /// Measures every subject at one point, in turn, so that all see the same weather.
    private func measureAll(_ benchmark: FileBenchmark, _ point: Point, _ conditions: Conditions) throws -> [Row] {
        var samples = subjects.map { _ in [Sample]() }
        for round in 0..<rounds {
            for (index, subject) in subjects.enumerated() {
                samples[index].append(
                    try measureShare(subject, benchmark, point, conditions, seed: UInt64(round + 1)))
            }
        }
        let rows = zip(subjects, samples).map { Row(point, "\($0)", $1) }
        for row in rows { print(row.text) }
        return rows
    }

    private func printVerdict(_ rows: [Row]) {
        let noisy = rows.count(where: \.isTooNoisy)
        if noisy > 0 { print("\(noisy) of \(rows.count) rows are noisy: the machine was too busy to tell.") }
        var worst: (ratio: Double, row: Row)?
        for row in rows where row.subject != "virtiofsd" {
            let other = rows.first { $0.point == row.point && $0.subject == "virtiofsd" }
            guard let other, other.iops > 0 else { continue }
            let ratio = row.iops / other.iops
            if ratio < worst?.ratio ?? .infinity { worst = (ratio, row) }
        }
        guard let worst else { return }
        print(
            "Least against virtiofsd: \(decimal(worst.ratio, 2)) x, \(worst.row.subject), "
                + "\(worst.row.point.name), depth "
                + "\(worst.row.point.depth), \(worst.row.point.queueCount) queues")
    }

    // MARK: The tree

    private func makeTree(_ place: String) throws {
        for path in [place, "\(place)/share", "\(place)/share/list"] {
            guard unsafe mkdir(path, 0o755) == 0 else { throw SystemError(cannot: "make", path, .current) }
        }
        for index in 0..<FileThroughputLoad.files {
            _ = try openFile("\(place)/share/file-\(index)", O_WRONLY | O_CREAT)
        }
        for index in 0..<FileThroughputLoad.listedFiles {
            _ = try openFile("\(place)/share/list/name-\(index)", O_WRONLY | O_CREAT)
        }
        let data = try openFile("\(place)/share/data", O_RDWR | O_CREAT)
        let block = [UInt8](repeating: 0x5a, count: 1 << 20)
        for _ in 0..<256 {
            let written = unsafe block.withUnsafeBytes { unsafe write(data.number, $0.baseAddress, $0.count) }
            guard written == 1 << 20 else { throw SystemError(cannot: "fill", "\(place)/share/data", .current) }
        }
        fsync(data.number)
    }

    /// Everything in it is two levels deep, and no links are among it.
    private func removeTree(_ place: String) {
        for directory in ["\(place)/share/list", "\(place)/share", place] {
            for name in directoryNames(directory) { unsafe unlink("\(directory)/\(name)") }
            unsafe rmdir(directory)
        }
    }
}

/// A back-end that shares a directory.
enum ShareSubject: Hashable, CustomStringConvertible {
    /// Baton's worker, at this path, with the options that virtiofsd has.
    case baton(String)
    /// The same under a supervisor: of the programs in this folder.
    case custody(String)
    case virtiofsd

    var description: String {
        switch self {
        case .baton: "baton"
        case .custody: "in custody"
        case .virtiofsd: "virtiofsd"
        }
    }

    /// Program and arguments.
    func command(socket: String, source: String, queueCount: Int) -> (String, [String]) {
        let common = ["--socket-path=\(socket)", "-o", "source=\(source)", "-o", "xattr,killpriv_v2,cache=auto"]
        switch self {
        case .baton(let path):
            return (path, ["--socket-path=\(socket)", "--shared-dir=\(source)", "--xattr", "--queues=\(queueCount)"])
        case .custody(let programs):
            return commandInCustody(
                programs, socket: socket,
                device: ["share", "bench", "--directory=\(source)", "--xattr", "--queues=\(queueCount)"])
        case .virtiofsd: return ("/usr/lib/qemu/virtiofsd", common)
        }
    }
}

/// Starts a subject, drives it, stops it.
private func measureShare(
    _ subject: ShareSubject, _ benchmark: FileBenchmark, _ point: Point, _ conditions: Conditions, seed: UInt64
) throws -> Sample {
    // Debian 12's has one request queue.
    let queueCount = subject == .virtiofsd ? 1 : point.queueCount
    let socket = "\(conditions.directory)/bench.sock"
    let server = try Server(
        "\(subject)",
        subject.command(socket: socket, source: "\(conditions.directory)/share", queueCount: queueCount),
        socket: socket, cpu: conditions.serverCPU, directory: conditions.directory)
    try pinCurrentThread(toCPU: conditions.clientCPU)
    var options = FileThroughputLoad.Options(benchmark)
    options.seed = seed
    // As many operations under way with one queue as with all of them.
    options.depth = point.depth * point.queueCount / queueCount
    options.queueCount = queueCount
    options.span = conditions.span
    var load = try FileThroughputLoad(connectingTo: socket, options)
    try load.start()
    _ = try load.measure(milliseconds: conditions.warmUpMilliseconds)
    let process = load.backendProcess
    let before = process.flatMap(processTreeCPUNanoseconds)
    let waited = threadWaitNanoseconds()
    let report = try load.measure(milliseconds: conditions.milliseconds)
    let contention = Double(threadWaitNanoseconds() - waited) / Double(report.nanoseconds)
    let after = process.flatMap(processTreeCPUNanoseconds)
    try load.drain()
    server.stop()
    guard report.errors == 0, report.requests > 0 else {
        throw BenchmarkError("\(subject), \(benchmark.rawValue): \(report.errors) errors, \(report.requests) done")
    }
    var cpu: Double?
    if let before, let after { cpu = Double(after - before) / 1000 / Double(report.requests) }
    return Sample(
        iops: report.requestsPerSecond, cpuMicrosecondsPerRequest: cpu,
        p50Microseconds: Double(report.latency.quantile(0.5)) / 1000,
        p99Microseconds: Double(report.latency.quantile(0.99)) / 1000, contention: contention)
}
