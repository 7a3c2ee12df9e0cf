// baton-kills: see Scripts/kills, which builds and starts it.
internal import Glibc
internal import KillKit
internal import Platform
internal import TestSupport

/// What the command line asks for.
struct Options {
    var kills = 300
    var seed = UInt64.random(in: 1...UInt64.max)
    var media: [KillMedium] = []
    var queueCounts: [Int] = []
    var json: String?
    var rings: [RingKind] = []

    /// - Throws: a sentence about what is wrong.
    init(_ arguments: [String]) throws(SystemError) {
        var rest = arguments[...]
        while let option = rest.popFirst() {
            if let medium = KillMedium.allCases.first(where: { "--\($0.rawValue)" == option }) {
                media.append(medium)
                continue
            }
            if let kind = RingKind.allCases.first(where: { "--\($0.rawValue)" == option }) {
                rings.append(kind)
                continue
            }
            guard let value = rest.popFirst() else {
                throw SystemError(cannot: "understand", option, nil, advice: "It is no option, or lacks its value")
            }
            switch option {
            case "--kills": kills = try Self.number(value, option, 1...1_000_000)
            case "--queues": queueCounts.append(try Self.number(value, option, 1...64))
            case "--seed": seed = UInt64(try Self.number(value, option, 1...Int.max))
            case "--json": json = value
            default: throw SystemError(cannot: "understand", option, nil, advice: "See Scripts/kills --help")
            }
        }
        if media.isEmpty { media = KillMedium.allCases }
        if rings.isEmpty { rings = RingKind.allCases }
        if queueCounts.isEmpty { queueCounts = [1, 4] }
    }

    private static func number(
        _ text: String, _ option: String, _ range: ClosedRange<Int>
    ) throws(SystemError) -> Int {
        guard let number = Int(text), range.contains(number) else {
            throw SystemError(
                cannot: "understand", "\(option) \(text)", nil,
                advice: "It is a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }
}

/// Shares the kills out to all combinations, and adds up what they find.
func run(_ options: Options) throws -> KillReport {
    let places = options.media.flatMap { medium in
        options.queueCounts.flatMap { count in options.rings.map { (medium, count, $0) } }
    }
    var sum = KillReport()
    for (index, (medium, queueCount, rings)) in places.enumerated() {
        let kills = options.kills * (index + 1) / places.count - options.kills * index / places.count
        let trial = KillTrial(
            medium, queueCount: queueCount, rings: rings, kills: kills, seed: max(1, options.seed / 2 &+ UInt64(index)))
        let report = try trial.run()
        let total = report.total
        printText(
            "\(medium.rawValue), \(queueCount) \(rings) queues: \(total.kills) kills,"
                + " \(total.kills - total.nothing) of them"
                + " with requests in flight; \(report.requests) requests, "
                + (report.isClean ? "all right\n" : "NOT RIGHT\n"), to: STDOUT_FILENO)
        sum.add(report)
    }
    return sum
}

do {
    let options = try Options(Array(CommandLine.arguments.dropFirst()))
    printText("seed \(options.seed)\n", to: STDOUT_FILENO)
    let report = try run(options)
    printText("\n\(report.table)\n", to: STDOUT_FILENO)
    if let json = options.json {
        let number = unsafe open(json, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard number >= 0 else { throw SystemError(cannot: "write", json, .current) }
        let file = OwnedFD(owning: number)
        printText(report.json, to: file.number)
    }
    exit(report.isClean ? 0 : 1)
} catch {
    printText("baton-kills: \(error)\n", to: STDERR_FILENO)
    exit(2)
}
