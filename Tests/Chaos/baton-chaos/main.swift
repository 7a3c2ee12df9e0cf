// baton-chaos: see Scripts/chaos, which builds and starts it.
internal import ChaosKit
internal import Glibc
internal import Platform

/// Reads the command line.
///
/// - Returns: the options, and where to write the figures as JSON.
/// - Throws: a sentence about what is wrong.
func parse(_ arguments: [String]) throws(SystemError) -> (ChaosOptions, String?) {
    var options = ChaosOptions(seed: UInt64.random(in: 1...UInt64(Int.max)))
    var json: String?
    var rest = arguments[...]
    while let option = rest.popFirst() {
        switch option {
        case "--packed": options.isPacked = true
        case "--direct": options.isDirect = true
        case "--throttled": options.isThrottled = true
        case "--interrupts": options.usesInterrupts = true
        case "--apart": options.separatesCPUs = true
        default:
            guard let value = rest.popFirst() else {
                throw SystemError(cannot: "understand", option, nil, advice: "It is no option, or lacks its value")
            }
            switch option {
            case "--kills": options.kills = try number(value, option, 0...1_000_000)
            case "--aimed": options.aimed = try number(value, option, 0...1000)
            case "--control": options.controlSeconds = try number(value, option, 0...3600)
            case "--traps": options.traps = try number(value, option, 0...1_000_000)
            case "--upgrades": options.upgrades = try number(value, option, 0...1_000_000)
            case "--seed": options.seed = UInt64(try number(value, option, 1...Int.max))
            case "--queues": options.queueCount = try number(value, option, 1...64)
            case "--threads": options.threadCount = try number(value, option, 1...15)
            case "--memory": options.memoryGiB = try number(value, option, 0...64)
            case "--latency": options.latencyMilliseconds = try number(value, option, 1...10_000)
            case "--nodes": options.knownNodes = try number(value, option, 0...2_000_000)
            case "--device":
                guard let device = ChaosOptions.Device(rawValue: value) else {
                    throw SystemError(cannot: "understand", "--device \(value)", nil, advice: "It is disk or share")
                }
                options.device = device
            case "--json": json = value
            default: throw SystemError(cannot: "understand", option, nil, advice: "See Scripts/chaos --help")
            }
        }
    }
    if options.isThrottled { options.queueCount = max(2, options.queueCount) }
    if options.isThrottled, options.latencyMilliseconds > 0 {
        throw SystemError(
            cannot: "understand", "the command line", nil, advice: "--throttled and --latency are two different disks")
    }
    let isOfDisks =
        options.isPacked || options.isDirect || options.isThrottled || options.usesInterrupts || options.aimed > 0
        || options.traps > 0 || options.latencyMilliseconds > 0 || options.separatesCPUs
        || options.memoryGiB > 0 || options.controlSeconds > 0
    if options.device == .share, isOfDisks {
        throw SystemError(
            cannot: "understand", "the command line", nil,
            advice: "With --device share go --kills, --upgrades, --nodes, --seed, --queues, --threads and --json")
    }
    return (options, json)
}

func number(_ text: String, _ option: String, _ range: ClosedRange<Int>) throws(SystemError) -> Int {
    guard let number = Int(text), range.contains(number) else {
        throw SystemError(
            cannot: "understand", "\(option) \(text)", nil,
            advice: "It is a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
}

do {
    let (options, json) = try parse(Array(CommandLine.arguments.dropFirst()))
    printText("seed \(options.seed)\n", to: STDOUT_FILENO)
    let report = try options.device == .share ? ShareTrial(options).run() : ChaosTrial(options).run()
    printText("\(report)\n", to: STDOUT_FILENO)
    if let json {
        let number = unsafe open(json, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard number >= 0 else { throw SystemError(cannot: "write", json, .current) }
        let file = OwnedFD(owning: number)
        printText(report.json, to: file.number)
    }
    exit(report.isClean ? 0 : 1)
} catch {
    printText("baton-chaos: \(error)\n", to: STDERR_FILENO)
    exit(2)
}
