internal import BlockTarget
internal import CLinux
internal import Glibc
internal import Logging
internal import Platform
internal import WorkerRuntime

/// What the command line asks for.
enum Invocation {
    case serve(WorkerConfiguration, Logger.Level)
    /// Mount the directory on this host.
    case mount(WorkerConfiguration, at: String, Logger.Level)
    /// Serve a device that a supervisor keeps, whose channel and kernel rings were inherited.
    case serveInCustody(channel: Int32, rings: [Int32], directory: Int32?, Confinement?, Logger.Level)
    case print(String)
}

/// What is wrong with the command line, as a sentence.
struct UsageError: Error {
    var description: String

    init(_ description: String) { self.description = description }
}

/// The options as they came, before they are put together.
struct RawOptions {
    var values: [Option: String] = [:]

    subscript(_ option: Option) -> String? { values[option] }
    func has(_ option: Option) -> Bool { values[option] != nil }
}

enum Option: String, CaseIterable {
    case socketPath = "socket-path"
    case fd
    case socketMode = "socket-mode"
    case socketOwner = "socket-owner"
    case socketGroup = "socket-group"
    case blkFile = "blk-file"
    case backend
    case size
    case readOnly = "read-only"
    case cache
    case allowLeaseLocks = "allow-lease-locks"
    case predecessorWait = "predecessor-wait"
    case blockSize = "block-size"
    case serial
    case queues
    case queueSize = "queue-size"
    case splitRings = "split-rings"
    case threads
    case cpus
    case custody
    case rings
    case confine
    case pollMicroseconds = "poll-us"
    case pinMemory = "pin-memory"
    case parkRequests = "park-requests"
    case allowShrink = "allow-shrink"
    case sandbox
    // Of a share
    case sharedDir = "shared-dir"
    case share
    case tag
    case mount
    case xattr
    case noXattr = "no-xattr"
    case xattrmap
    case posixACL = "posix-acl"
    case noPosixACL = "no-posix-acl"
    case writeback
    case noWriteback = "no-writeback"
    case flock
    case noFlock = "no-flock"
    case posixLock = "posix-lock"
    case noPosixLock = "no-posix-lock"
    case securityLabel = "security-label"
    case noSecurityLabel = "no-security-label"
    case allowDirectIO = "allow-direct-io"
    case noAllowDirectIO = "no-allow-direct-io"
    case announceSubmounts = "announce-submounts"
    case noAnnounceSubmounts = "no-announce-submounts"
    case readdirplus
    case noReaddirplus = "no-readdirplus"
    case killpriv = "killpriv-v2"
    case noKillpriv = "no-killpriv-v2"
    case inodeFileHandles = "inode-file-handles"
    case translateUID = "translate-uid"
    case translateGID = "translate-gid"
    case modcaps
    case seccomp
    case threadPoolSize = "thread-pool-size"
    case rlimitNofile = "rlimit-nofile"
    case maxNodes = "max-nodes"
    case maxFiles = "max-files"
    case syslog
    case logLevel = "log-level"
    case printCapabilities = "print-capabilities"
    case version
    case help

    var takesValue: Bool {
        switch self {
        case .readOnly, .allowLeaseLocks, .splitRings, .pinMemory, .parkRequests, .allowShrink, .printCapabilities,
            .version, .help, .xattr, .noXattr, .posixACL, .noPosixACL, .writeback, .noWriteback, .flock, .noFlock,
            .posixLock, .noPosixLock, .securityLabel, .noSecurityLabel, .allowDirectIO, .noAllowDirectIO,
            .announceSubmounts, .noAnnounceSubmounts, .readdirplus, .noReaddirplus, .killpriv, .noKillpriv, .syslog:
            false
        default: true
        }
    }
}

/// Reads this process's command line.
///
/// - Parameter version: of this build.
func parseCommandLine(version: String) throws(UsageError) -> Invocation {
    let isVirtiofsd = CommandLine.arguments.first.map { $0.hasSuffix("baton-virtiofsd") } ?? false
    let words =
        isVirtiofsd || isShare(CommandLine.arguments)
        ? try expandShareArguments(CommandLine.arguments) : CommandLine.arguments
    let options = try readOptions(words)
    if options.has(.help) { return .print(isVirtiofsd ? shareUsage : usage) }
    if options.has(.version) {
        return .print("\(isVirtiofsd ? "baton-virtiofsd" : "baton-worker") \(version)\n")
    }
    if options.has(.printCapabilities) { return .print(isVirtiofsd ? shareCapabilities : capabilities) }
    if isVirtiofsd, !options.has(.sharedDir) { throw UsageError("say what to share: --shared-dir=PATH") }
    if let text = options[.custody] {
        let numbers = ([text] + (options[.rings] ?? "").split(separator: ",").map(String.init)).map { Int32($0) ?? -1 }
        guard numbers.count >= 3, numbers.allSatisfy({ $0 >= 0 }) else {
            throw UsageError(
                "--custody=FD and --rings=FD,FD,... are a supervisor's to give: they name inherited descriptors")
        }
        return .serveInCustody(
            channel: numbers[0], rings: Array(numbers[1...]), directory: options[.share].flatMap { Int32($0) },
            try confinement(options), try logLevel(options))
    }
    if let place = options[.mount] {
        guard options.has(.sharedDir), !options.has(.socketPath), !options.has(.fd) else {
            throw UsageError("--mount goes with --shared-dir, and without --socket-path and --fd")
        }
        return .mount(try configuration(options, .descriptor(-1)), at: place, try logLevel(options))
    }
    return .serve(try configuration(options, meeting(options)), try logLevel(options))
}

/// What a supervisor wants a worker to give up: `room` or `host`, then perhaps a user and a group.
private func confinement(_ options: RawOptions) throws(UsageError) -> Confinement? {
    guard let text = options[.confine] else { return nil }
    let words = text.split(separator: ",", omittingEmptySubsequences: false)
    let numbers = words.dropFirst().compactMap { UInt32($0) }
    guard words[0] == "room" || words[0] == "host", words.count == 1 || words.count == 3,
        numbers.count == words.count - 1
    else { throw UsageError("--confine is a supervisor's to give: room or host, then perhaps a user and a group") }
    return Confinement(user: numbers.first, group: numbers.last, isInRoom: words[0] == "room")
}

/// Reads a device's configuration as a supervisor spells it: the same options, one a line.
func parseConfiguration(_ text: String) throws(UsageError) -> WorkerConfiguration {
    let lines = text.split(separator: "\n").map(String.init)
    return try configuration(try readOptions(["baton-worker"] + lines), .descriptor(-1))
}

private func configuration(_ options: RawOptions, _ meeting: Meeting) throws(UsageError) -> WorkerConfiguration {
    var configuration = WorkerConfiguration(meeting: meeting, storage: try storage(options))
    configuration.isReadOnly = options.has(.readOnly)
    if let text = options[.blockSize] {
        guard text == "512" || text == "4096" else {
            throw UsageError("--block-size is 512 or 4096, not '\(text)'")
        }
        configuration.logicalBlockSize = Int(text)
    }
    if let serial = options[.serial] {
        guard serial.utf8.count <= 20 else {
            throw UsageError("--serial has at most 20 bytes; '\(serial)' has \(serial.utf8.count)")
        }
        configuration.serial = serial
    }
    var hiprio = 0
    if case .directory = configuration.storage { hiprio = 1 }
    if let queues = try options.number(.queues, 1...WorkerConfiguration.maximumQueueCount - hiprio) {
        configuration.queueCount = queues
    }
    // It comes before the request queues.
    configuration.queueCount += hiprio
    if case .directory = configuration.storage {
        if case .directory(_, let share) = configuration.storage {
            configuration.sandbox = share.isolation == .auto ? .auto : share.isolation == .namespace ? .on : .off
        }
        if let size = try options.number(.threadPoolSize, 0...1024), size > 0, !options.has(.threads) {
            configuration.threadCount = min(size, configuration.queueCount)
        }
    }
    if let size = try options.number(.queueSize, WorkerConfiguration.queueSizes) {
        configuration.maximumQueueSize = size
    }
    configuration.offersPackedRings = !options.has(.splitRings)
    if let threads = try options.number(.threads, 1...WorkerConfiguration.maximumQueueCount) {
        guard threads <= configuration.queueCount else {
            throw UsageError(
                "--threads=\(threads) is more than the \(configuration.queueCount) queues there are"
                    + (hiprio == 0 ? "" : ", hiprio among them") + ": raise --queues")
        }
        configuration.threadCount = threads
    }
    if let poll = try options.number(.pollMicroseconds, 0...WorkerConfiguration.maximumPollMicroseconds) {
        configuration.pollMicroseconds = poll
    }
    if let seconds = try options.number(.predecessorWait, WorkerConfiguration.predecessorSecondsRange) {
        configuration.predecessorSeconds = seconds
    }
    if let text = options[.sandbox], !options.has(.sharedDir) {
        guard let sandbox = Sandbox(rawValue: text) else {
            throw UsageError("--sandbox is auto, on or off, not '\(text)'")
        }
        configuration.sandbox = sandbox
    }
    configuration.allowsLeaseLocks = options.has(.allowLeaseLocks)
    configuration.pinsGuestMemory = options.has(.pinMemory)
    configuration.parksRequests = options.has(.parkRequests)
    configuration.allowsShrinking = options.has(.allowShrink)
    if let list = options[.cpus] { configuration.cpus = try cpus(list) }
    return configuration
}

private func readOptions(_ arguments: [String]) throws(UsageError) -> RawOptions {
    var table: [option] = unsafe []
    // The names live as long as the process: getopt_long keeps pointers to them.
    for (index, entry) in Option.allCases.enumerated() {
        unsafe table.append(
            unsafe option(
                name: UnsafePointer(strdup(entry.rawValue)), has_arg: entry.takesValue ? 1 : 0, flag: nil,
                val: Int32(256 + index)))
    }
    unsafe table.append(option(name: nil, has_arg: 0, flag: nil, val: 0))
    var options = RawOptions()
    var value: UnsafePointer<CChar>?
    var next: Int32 = 1
    // getopt_long keeps its place in a variable of its own, and the values point into these words.
    var words = unsafe arguments.map { unsafe strdup($0) }
    unsafe words.append(nil)
    clinux_restart_options()
    while true {
        let code = unsafe clinux_next_option(Int32(arguments.count), words, table, &value, &next)
        if code == -1 { break }
        guard code >= 256, Int(code) - 256 < Option.allCases.count else {
            let text = arguments[max(1, min(Int(next) - 1, arguments.count - 1))]
            throw UsageError(
                code == Int32(UInt8(ascii: ":"))
                    ? "\(text) needs a value" : "the option \(text) is not known or not used like this; see --help")
        }
        let entry = Option.allCases[Int(code) - 256]
        guard !options.has(entry) else { throw UsageError("--\(entry.rawValue) is given twice") }
        options.values[entry] = unsafe value.map { unsafe String(cString: $0) } ?? ""
    }
    if Int(next) < arguments.count {
        throw UsageError("'\(arguments[Int(next)])' is no option; see --help")
    }
    return options
}

private func meeting(_ options: RawOptions) throws(UsageError) -> Meeting {
    if let text = options[.fd] {
        guard !options.has(.socketPath) else { throw UsageError("--fd and --socket-path exclude each other") }
        guard let number = Int32(text), number >= 0 else {
            throw UsageError("--fd is the number of an open file descriptor, not '\(text)'")
        }
        return .descriptor(number)
    }
    guard let path = options[.socketPath], !path.isEmpty else {
        throw UsageError("say where to meet the front-end: --socket-path=PATH or --fd=N")
    }
    var access = SocketAccess()
    if let text = options[.socketMode] {
        guard let mode = UInt32(text, radix: 8), mode <= 0o777 else {
            throw UsageError("--socket-mode is octal, such as 0660, not '\(text)'")
        }
        access.mode = mode
    }
    if let name = options[.socketOwner] {
        guard let owner = UInt32(name) ?? (unsafe getpwnam(name).map { unsafe $0.pointee.pw_uid }) else {
            throw UsageError("--socket-owner: there is no user '\(name)'")
        }
        access.owner = owner
    }
    if let name = options[.socketGroup] {
        guard let group = UInt32(name) ?? (unsafe getgrnam(name).map { unsafe $0.pointee.gr_gid }) else {
            throw UsageError("--socket-group: there is no group '\(name)'")
        }
        access.group = group
    }
    return .path(path, access)
}

private func storage(_ options: RawOptions) throws(UsageError) -> Storage {
    if options.has(.sharedDir) || options.has(.tag) {
        guard let path = options[.sharedDir], !path.isEmpty else {
            throw UsageError("say what to share: --shared-dir=PATH")
        }
        return .directory(path: path, try options.share())
    }
    let kind = options[.backend] ?? "file"
    if kind == "file" {
        guard let path = options[.blkFile], !path.isEmpty else {
            throw UsageError("say what to serve: --blk-file=PATH")
        }
        if options.has(.size) { throw UsageError("--size is for --backend=memory and null; a file has its own size") }
        var cache = CacheMode.direct
        if let text = options[.cache] {
            guard let mode = CacheMode(rawValue: text) else {
                throw UsageError("--cache is direct or buffered, not '\(text)'")
            }
            cache = mode
        }
        return .image(path: path, cache: cache)
    }
    guard kind == "memory" || kind == "null" else {
        throw UsageError("--backend is file, memory or null, not '\(kind)'")
    }
    for option in [Option.blkFile, .cache, .allowLeaseLocks, .predecessorWait] where options.has(option) {
        throw UsageError("--\(option.rawValue) does not go with --backend=\(kind)")
    }
    let bytes = try byteCount(options[.size] ?? "1G")
    return kind == "memory" ? .memory(bytes: bytes) : .null(bytes: bytes)
}

/// A size with a suffix, 1 sector to 8 EiB, in whole blocks of 4096 bytes.
private func byteCount(_ text: String) throws(UsageError) -> UInt64 {
    let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
    let unit = text.last.flatMap { units[Character($0.uppercased())] }
    let digits = unit == nil ? text[...] : text.dropLast()
    guard let count = UInt64(digits), count > 0 else {
        throw UsageError("--size is a number of bytes such as 4096, 512M or 10G, not '\(text)'")
    }
    let (bytes, overflow) = count.multipliedReportingOverflow(by: unit ?? 1)
    guard !overflow, bytes <= UInt64(Int64.max), bytes % 4096 == 0 else {
        throw UsageError("--size is a multiple of 4096 below 8 EiB, not '\(text)'")
    }
    return bytes
}

extension RawOptions {
    /// - Throws: when it is no number of the range.
    func number(_ option: Option, _ range: ClosedRange<Int>) throws(UsageError) -> Int? {
        guard let text = self[option] else { return nil }
        guard let value = Int(text), range.contains(value) else {
            throw UsageError(
                "--\(option.rawValue) is a number from \(range.lowerBound) to \(range.upperBound), not '\(text)'")
        }
        return value
    }
}

private func cpus(_ list: String) throws(UsageError) -> [Int] {
    var cpus: [Int] = []
    for part in list.split(separator: ",", omittingEmptySubsequences: false) {
        guard let cpu = Int(part), cpu >= 0, cpu < 4096 else {
            throw UsageError("--cpus is a list of CPU numbers such as 0,2,4, not '\(list)'")
        }
        cpus.append(cpu)
    }
    return cpus
}

private func logLevel(_ options: RawOptions) throws(UsageError) -> Logger.Level {
    guard let text = options[.logLevel] else { return .info }
    guard let level = Logger.Level(rawValue: text) else {
        let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
        throw UsageError("--log-level is one of \(levels), not '\(text)'")
    }
    return level
}
