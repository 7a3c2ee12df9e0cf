// baton-share-check: see Scripts/share/check, which builds and starts it.
internal import FileCheckKit
internal import FrontendKit
internal import Glibc
internal import Platform
internal import TestSupport

/// What the command line asks for.
struct Options {
    var operations = 100_000
    var seed = UInt64.random(in: 1...UInt64(Int.max))
    var runs = 1
    var interval = 5000
    /// Many clients at once, whose answers are known beforehand, instead.
    var isLoad = false
    var queues = 1
    /// A back-end that runs already, and the directory that it shares.
    var socket: String?
    /// A directory where the same tree is mounted.
    var mount: String?
    /// The directory of the host that is behind socket or mount.
    var tree: String?
    /// The program that is started, and its further options.
    var program = VirtioFileDaemon.debian
    var programOptions: [String] = []
    var directory = "/var/tmp"
    var planned = OperationGenerator.Options()

    /// - Throws: a sentence about what is wrong.
    init(_ arguments: [String]) throws(SystemError) {
        var rest = arguments[...]
        while let option = rest.popFirst() {
            if option == "--no-tmpfile" {
                planned.temporaryFiles = false
                continue
            }
            if option == "--no-whiteouts" {
                planned.whiteouts = false
                continue
            }
            if option == "--load" {
                isLoad = true
                continue
            }
            guard let value = rest.popFirst() else {
                throw SystemError(cannot: "understand", option, nil, advice: "It is no option, or lacks its value")
            }
            switch option {
            case "--operations": operations = try Self.number(value, option)
            case "--seed": seed = UInt64(try Self.number(value, option))
            case "--interval": interval = try Self.number(value, option)
            case "--queues": queues = try Self.number(value, option)
            case "--runs": runs = try Self.number(value, option)
            case "--socket": socket = value
            case "--mount": mount = value
            case "--tree": tree = value
            case "--program": program = value
            case "--option": programOptions.append(value)
            case "--directory": directory = value
            default: throw SystemError(cannot: "understand", option, nil, advice: "See Scripts/share/check --help")
            }
        }
        guard (socket == nil && mount == nil) == (tree == nil) else {
            throw SystemError(
                cannot: "understand", "the command line", nil, advice: "--socket and --mount go with --tree")
        }
        if program == VirtioFileDaemon.debian {
            // Debian 12's speaks FUSE 7.36, which has none; and it makes the whiteout as root, whoever asked for it.
            planned.temporaryFiles = false
            planned.whiteouts = false
        }
        if programOptions.isEmpty { programOptions = ["-o", "xattr,posix_lock,flock,killpriv_v2"] }
        if mount != nil { planned.recordLocks = false }
    }

    private static func number(_ text: String, _ option: String) throws(SystemError) -> Int {
        guard let number = Int(text), number > 0 else {
            throw SystemError(cannot: "understand", "\(option) \(text)", nil, advice: "It is a positive number")
        }
        return number
    }
}

/// One run on empty trees.
func run(_ options: Options, seed: UInt64) throws -> FileCheck.Report {
    let work = try TemporaryDirectory()
    let place = "\(options.directory)/baton-share-check-\(getpid())"
    let model = "\(place)/model"
    let tree = options.tree ?? "\(place)/share"
    defer { _ = try? TestSupport.run("rm", ["-rf", place], in: work) }
    for path in [place, model, tree] { unsafe mkdir(path, 0o755) }
    for path in [model, tree] {
        guard unsafe chmod(path, 0o777) == 0 else { throw SystemError(cannot: "open up", path, .current) }
    }
    guard TestFile.names(in: tree).isEmpty else {
        throw SystemError(cannot: "begin in", tree, nil, advice: "It is not empty")
    }
    var calls = try SystemCalls(model)
    var check = FileCheck(seed: seed, operations: options.operations, options: options.planned)
    check.interval = options.interval
    var report: FileCheck.Report
    if let mount = options.mount {
        var tested = try SystemCalls(mount)
        report = try check.run(&tested, &calls, trees: (tree, model))
        tested.end()
    } else {
        var daemon: VirtioFileDaemon?
        if options.socket == nil {
            daemon = try VirtioFileDaemon(
                options.program, sharing: tree, options: options.programOptions, in: work)
        }
        let socket = options.socket ?? daemon?.socketPath ?? ""
        var tested = GuestKernel(try FileMount(connectingTo: socket))
        report = try check.run(&tested, &calls, trees: (tree, model))
        try tested.end()
        daemon?.program.stop()
    }
    calls.end()
    return report
}

/// Many clients at once.
func runLoad(_ options: Options, seed: UInt64) throws -> FileLoadReport {
    let work = try TemporaryDirectory()
    let tree = options.tree ?? "\(options.directory)/baton-share-check-\(getpid())"
    defer { if options.tree == nil { _ = try? TestSupport.run("rm", ["-rf", tree], in: work) } }
    unsafe mkdir(tree, 0o755)
    var daemon: VirtioFileDaemon?
    if options.socket == nil {
        daemon = try VirtioFileDaemon(options.program, sharing: tree, options: options.programOptions, in: work)
    }
    var planned = VerifiedFileLoad.Options(seed: seed)
    planned.requestLimit = options.operations
    planned.queueCount = options.queues
    planned.looksFirst = options.program == VirtioFileDaemon.debian && options.socket == nil
    var load = try VerifiedFileLoad(connectingTo: options.socket ?? daemon?.socketPath ?? "", planned)
    let report = try load.run()
    try load.checkConnection()
    daemon?.program.stop()
    return report
}

do {
    let options = try Options(Array(CommandLine.arguments.dropFirst()))
    var isRight = true
    for index in 0..<options.runs {
        let seed = options.seed &+ UInt64(index)
        if options.isLoad {
            let report = try runLoad(options, seed: seed)
            if !report.isClean { isRight = false }
            printText("\(report)\n", to: STDOUT_FILENO)
            continue
        }
        let start = monotonicNanoseconds()
        let report = try run(options, seed: seed)
        let seconds = (monotonicNanoseconds() - start) / 1_000_000_000
        printText(
            "seed \(seed): \(report.operations) operations, \(report.refused) of them refused, "
                + "\(report.passed) passed over, \(report.difference == nil ? 0 : 1) differences, \(seconds) s\n",
            to: STDOUT_FILENO)
        if let difference = report.difference {
            isRight = false
            printText("\(difference)\n", to: STDOUT_FILENO)
        }
    }
    exit(isRight ? 0 : 1)
} catch {
    printText("baton-share-check: \(error)\n", to: STDERR_FILENO)
    exit(2)
}
