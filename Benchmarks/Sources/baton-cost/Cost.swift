internal import ArgumentParser
internal import FrontendKit
internal import Glibc
internal import Platform

@main
struct Cost: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "baton-cost",
        abstract: "Counts the instructions that a worker executes for one request of its null backend.",
        discussion: """
            The worker runs under callgrind, which counts and does not measure time. It polls never (--poll-us=0), and \
            each batch of requests is sent when it sleeps: so a batch costs one sleep, one turn that finds all of it \
            and one that finds nothing, whatever the machine does meanwhile. Two runs, one with twice the \
            requests, are \
            subtracted from one another: what is left has neither start nor end in it.

            Requests have the usual three descriptors. With a batch of 1 the whole turn and the sleep are that one \
            request's; with 64, the most that a worker takes at once, they are shared.
            """)

    @Option(help: ArgumentHelp("The worker to look at.", valueName: "path"))
    var worker: String

    @Option(help: "Requests in a batch, 1 to 64.")
    var batch = 64

    @Option(help: "Batches of the shorter run.")
    var batches = 1000

    @Option(help: "Fail when the inflight log of a split ring costs more instructions per request than this.")
    var limit: Double?

    @Flag(inversion: .prefixedNo, help: "Look at packed rings, too.")
    var packed = true

    @Option(help: ArgumentHelp("Keep callgrind's files here.", valueName: "path"))
    var profiles: String?

    func validate() throws {
        guard (1...64).contains(batch), batches > 0 else { throw ValidationError("Nothing would be counted.") }
    }

    func run() throws {
        let directory = profiles ?? "/var/tmp/baton-cost-\(getpid())"
        guard unsafe mkdir(directory, 0o700) == 0 || Errno.current.rawValue == EEXIST else {
            throw SystemError(cannot: "make", directory, .current)
        }
        defer {
            if profiles == nil { removeDirectory(directory) }
        }
        let runs = Runs(worker: worker, batch: batch, directory: directory)
        print("Instructions per request, null backend, batches of \(batch):")
        let off = try perRequest(runs, Variant(isPacked: false, hasLog: false))
        let on = try perRequest(runs, Variant(isPacked: false, hasLog: true))
        print("  split ring, no log       \(decimal(off))")
        print("  split ring, log          \(decimal(on))")
        print("  the log of a split ring  \(decimal(on - off))")
        if packed {
            // It has a log in any case, from which requests are carried out: with a region, a successor finds it.
            let own = try perRequest(runs, Variant(isPacked: true, hasLog: false))
            let kept = try perRequest(runs, Variant(isPacked: true, hasLog: true))
            print("  packed ring, log of own  \(decimal(own))")
            print("  packed ring, log         \(decimal(kept))")
        }
        if let limit, on - off > limit {
            throw CostError("the inflight log costs more than \(limit) instructions per request")
        }
    }

    /// The second run has twice the requests of the first.
    private func perRequest(_ runs: Runs, _ variant: Variant) throws -> Double {
        let once = try shortest(runs, variant, batches: batches)
        let twice = try shortest(runs, variant, batches: 2 * batches)
        return Double(twice - once) / Double(batches * batch)
    }

    /// Some starts execute 165,000 instructions more than others: of a few runs the shortest counts.
    private func shortest(_ runs: Runs, _ variant: Variant, batches: Int) throws -> Int {
        try (0..<3).map { _ in try runs.count(variant, batches: batches) }.reduce(Int.max, min)
    }

    private func removeDirectory(_ path: String) {
        for name in Runs.fileNames { unsafe unlink("\(path)/\(name)") }
        unsafe rmdir(path)
    }
}

/// Two digits: what is left after them differs from run to run.
private func decimal(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    let text = "\(hundredths / 100).\(hundredths % 100 / 10)\(hundredths % 10)"
    return String(repeating: " ", count: max(0, 9 - text.utf8.count)) + text
}
