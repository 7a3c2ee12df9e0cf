internal import ArgumentParser
internal import FrontendKit
internal import Glibc
internal import Platform

/// Measures what the inflight log takes of a request: see `Scripts/bench --log`.
struct LogBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log",
        abstract: "Measures what the inflight log, or all of custody, costs a request of a cached file.",
        discussion: """
            Pairs of short runs, one of a worker on its own without an inflight region and one with (and in custody, \
            with --custody), every other pair the other way round, so that what the machine does meanwhile meets both. \
            What is compared is CPU time of the server per request, a supervisor's included; printed is the median \
            over the pairs of how much more it is, and the interval that holds the true median in 95 of 100 such \
            benchmarks.
            """)

    @Option(help: ArgumentHelp("Baton's worker.", valueName: "path"))
    var worker: String

    @Option(
        help: ArgumentHelp("The second in custody: of batond, baton and baton-worker in here.", valueName: "path"))
    var custody: String?

    @Option(help: "How many pairs of runs.")
    var pairs = 200

    @Option(help: "Length of one run, in milliseconds.")
    var milliseconds = 200

    @Option(help: "Requests under way.")
    var depth = 32

    @Option(help: "Size of the file, in MiB.")
    var fileSize = 512

    @Option(help: "The CPU that servers run on.")
    var serverCPU = 0

    @Option(help: "The CPU that the client runs on.")
    var clientCPU = 1

    @Option(help: ArgumentHelp("Where the image, sockets and logs go.", valueName: "path"))
    var directory = "/var/tmp"

    func validate() throws {
        guard pairs > 5, milliseconds > 0, depth > 0, fileSize > 0 else {
            throw ValidationError("Nothing would be measured: six pairs are the fewest that tell anything.")
        }
    }

    func run() throws {
        let room = try BenchDirectory(in: directory)
        defer { room.remove() }
        let image = try room.makeImage(mebibytes: fileSize)
        let point = Point(name: "file-read", backing: .file(image), writePercentage: 0, depth: depth, queueCount: 1)
        var conditions = Conditions(
            serverCPU: serverCPU, clientCPU: clientCPU, warmUpMilliseconds: 50, milliseconds: milliseconds,
            chainLayout: .direct, span: UInt64(fileSize) << 20, directory: room.path)
        let (without, with) = (Subject.baton(worker), custody.map { Subject.custody($0) } ?? .baton(worker))
        var off: [Double] = []
        var on: [Double] = []
        for pair in 0..<pairs {
            for usesInflight in pair % 2 == 0 ? [false, true] : [true, false] {
                conditions.usesInflight = usesInflight
                let sample = try measure(usesInflight ? with : without, point, conditions, seed: UInt64(pair + 1))
                guard let cpu = sample.cpuMicrosecondsPerRequest else {
                    throw BenchmarkError("the CPU time of the worker cannot be read")
                }
                if usesInflight { on.append(cpu) } else { off.append(cpu) }
            }
        }
        let ratios = zip(off, on).map { $1 / $0 - 1 }.sorted()
        let (first, last) = Self.interval(of: pairs)
        print(
            """
            CPU per request, median of \(pairs) runs each: \(decimal(median(off), 4)) us on its own without a log, \
            \(decimal(median(on), 4)) us \(custody == nil ? "with one" : "in custody with one")
            the median of the pairs: \(percent(median(ratios))) \
            (95 %: \(percent(ratios[first])) to \(percent(ratios[last])))
            """)
    }

    /// The places of the ordered values between which the median lies with 95 % certainty: the signs of `count`
    /// differences from it are coins, for which half the count, give or take 0.98 of its root, is that interval.
    private static func interval(of count: Int) -> (first: Int, last: Int) {
        let reach = 0.98 * Double(count).squareRoot()
        let first = max(0, Int((Double(count) / 2 - reach).rounded(.down)))
        return (first, count - 1 - first)
    }

    private func percent(_ part: Double) -> String { (part < 0 ? "-" : "+") + decimal(abs(part) * 100, 2) + " %" }
}
