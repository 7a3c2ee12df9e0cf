internal import ArgumentParser
internal import FrontendKit
internal import Glibc
internal import Platform

@main
struct Benchmarks: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "baton-bench", abstract: "Measures Baton against others.",
        subcommands: [Bench.self, ShareBench.self, LogBench.self],
        defaultSubcommand: Bench.self)
}

struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disk",
        abstract: "Measures vhost-user-blk back-ends with one client, in turn and in several rounds.",
        discussion: """
            Every run starts the server on one CPU and drives it from another with 4 KiB random requests. Printed are \
            medians over the rounds. The client polls; what it can do alone is printed first.
            """)

    @Flag(help: "Reads only, one queue: under 5 minutes.")
    var quick = false

    @Option(help: ArgumentHelp("Baton's worker; without it Baton is not measured.", valueName: "path"))
    var worker: String?

    @Flag(inversion: .prefixedNo, help: "Measure qemu-storage-daemon.")
    var qsd = true

    @Option(help: ArgumentHelp("Also measure a back-end that runs already; reads only.", valueName: "name=socket"))
    var peer: [String] = []

    @Option(help: ArgumentHelp("Only these cases: null-read, file-read, file-write, file-mixed.", valueName: "case"))
    var only: [String] = []

    @Option(help: ArgumentHelp("Only these depths: 1, 32, 128 or others.", valueName: "requests"))
    var depth: [Int] = []

    @Option(help: "How often each subject is measured at each point.")
    var rounds = 5

    @Option(help: "Length of one measurement, in milliseconds.")
    var milliseconds = 1000

    @Option(help: "Size of the file, in MiB.")
    var fileSize = 512

    @Flag(help: "Put descriptors into indirect tables.")
    var indirect = false

    @Option(help: "The CPU that servers run on.")
    var serverCPU = 0

    @Option(help: "The CPU that the client runs on.")
    var clientCPU = 1

    @Option(help: ArgumentHelp("Where the image, sockets and logs go.", valueName: "path"))
    var directory = "/var/tmp"

    @Option(help: ArgumentHelp("Also write the rows as JSON.", valueName: "file"))
    var json: String?

    func validate() throws {
        guard rounds > 0, milliseconds > 0, fileSize > 0, depth.allSatisfy({ $0 > 0 }) else {
            throw ValidationError("Nothing would be measured.")
        }
        guard peer.allSatisfy({ $0.contains("=") }) else { throw ValidationError("A peer is NAME=SOCKET.") }
        guard serverCPU != clientCPU, max(serverCPU, clientCPU) < onlineCPUCount() else {
            throw ValidationError("Server and client need a CPU each; this machine has \(onlineCPUCount()).")
        }
    }

    func run() throws {
        let room = try BenchDirectory(in: directory)
        defer { room.remove() }
        let conditions = Conditions(
            serverCPU: serverCPU, clientCPU: clientCPU, warmUpMilliseconds: 300, milliseconds: milliseconds,
            chainLayout: indirect ? .indirect : .direct, span: UInt64(fileSize) << 20, directory: room.path)
        try printClient(conditions)
        let points = points(image: try room.makeImage(mebibytes: fileSize))
        print(Row.heading)
        var rows: [Row] = []
        for point in points { rows += try measureAll(point, conditions) }
        printVerdict(rows)
        if let json { try writeJSON(rows, to: json) }
    }

    private func printClient(_ conditions: Conditions) throws {
        let rates = try (0..<3).map { _ in try measureClient(conditions, depth: 128) }
        print("The client alone, an ideal peer on the same CPU: \(decimal(median(rates) / 1e6, 1)) M IOPS")
    }

    /// What is measured, in order.
    private func points(image: String) -> [Point] {
        var cases: [(String, Backing, UInt64)] = [("null-read", .null, 0), ("file-read", .file(image), 0)]
        if !quick { cases += [("file-write", .file(image), 100), ("file-mixed", .file(image), 30)] }
        if !only.isEmpty { cases = cases.filter { only.contains($0.0) } }
        return cases.flatMap { name, backing, writes in
            (quick ? [1] : [1, 2, 4]).flatMap { queues in
                (depth.isEmpty ? [1, 32, 128] : depth).map { depth in
                    Point(name: name, backing: backing, writePercentage: writes, depth: depth, queueCount: queues)
                }
            }
        }
    }

    private func subjects(_ point: Point) -> [Subject] {
        var subjects: [Subject] = worker.map { [.baton($0)] } ?? []
        if qsd { subjects.append(.storageDaemon) }
        guard point.writePercentage == 0 else { return subjects }
        return subjects
            + peer.map { text in
                let parts = text.split(separator: "=", maxSplits: 1)
                return .peer(name: String(parts[0]), socket: String(parts.last ?? ""))
            }
    }

    /// Measures every subject at one point, alternating, so that all see the same weather.
    private func measureAll(_ point: Point, _ conditions: Conditions) throws -> [Row] {
        let subjects = subjects(point)
        var samples = subjects.map { _ in [Sample]() }
        var ceiling: [Sample] = []
        for round in 0..<rounds {
            for (index, subject) in subjects.enumerated() {
                samples[index].append(try measure(subject, point, conditions, seed: UInt64(round + 1)))
            }
            if case .file(let path) = point.backing, point.queueCount == 1 {
                ceiling.append(try measureCeiling(path, point, conditions, seed: UInt64(round + 1)))
            }
        }
        var rows = zip(subjects, samples).map { Row(point, "\($0)", $1) }
        if !ceiling.isEmpty { rows.append(Row(point, "bare ceiling", ceiling)) }
        for row in rows { print(row.text) }
        return rows
    }

    private func printVerdict(_ rows: [Row]) {
        let noisy = rows.count(where: \.isTooNoisy)
        guard noisy > 0 else { return }
        print(
            """
            \(noisy) of \(rows.count) rows spread over more than \(Int(Row.spreadLimit * 100)) %, or others had the \
            CPU for more than \(Int(Row.contentionLimit * 100)) % of the time: for those the machine is too noisy \
            to tell.
            """)
    }
}
