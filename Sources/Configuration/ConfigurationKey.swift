internal import ControlAPI

/// A key of `[disk.NAME]`: what it takes, and what a change of it does to a device that runs.
public struct ConfigurationKey: Sendable {
    /// What a change does.
    public enum Change: String, Sendable, CaseIterable {
        /// Takes effect at once.
        case live
        /// Takes effect at once, by a take-over: the workers are replaced as in an upgrade.
        case liveByTakeOver = "live, by a take-over"
        /// The device has to be made anew.
        case recreation = "no"
    }

    /// As on the command line of `baton create disk`, without the dashes.
    public let name: String
    let form: ValueForm
    /// What holds where the key is absent, for people.
    public let standard: String
    public let change: Change
    /// Whether it may stand in `[defaults]`: what is one device's own may not.
    public let isDefaultable: Bool
    /// For people, as a sentence.
    public let about: String
    /// What a disk has; nil when it has not been given.
    let get: @Sendable (DiskParameters) -> ReadValue?
    /// nil: what holds where the key is absent.
    let set: @Sendable (inout DiskParameters, ReadValue?) -> Void

    /// What it takes, for people.
    public var range: String { form.description }

    /// All keys, in the order of the documentation.
    public static let all: [ConfigurationKey] = identity + geometry + running + access + limits

    static func named(_ name: String) -> ConfigurationKey? { all.first { $0.name == name } }
}

// MARK: - The schema

extension ConfigurationKey {
    private static let identity: [ConfigurationKey] = [
        ConfigurationKey(
            name: "file", form: .path(limit: 4095), standard: "none", change: .recreation, isDefaultable: false,
            about: "The image: a raw file or a block device.",
            get: { $0.file.map { ReadValue(text: $0) } },
            set: { $0.file = $1?.text }),
        ConfigurationKey(
            name: "null", form: .flag, standard: "false", change: .recreation, isDefaultable: false,
            about: "Keep nothing: for measurements, instead of `file`.",
            get: { ReadValue(flag: $0.file == nil) },
            set: { _, _ in }),
        ConfigurationKey(
            name: "socket", form: .path(limit: 106), standard: "NAME.sock in batond's state directory",
            change: .recreation, isDefaultable: false,
            about: "Where front-ends connect.",
            get: { $0.socket.map { ReadValue(text: $0) } },
            set: { $0.socket = $1?.text }),
        ConfigurationKey(
            name: "serial", form: .serial, standard: "none", change: .recreation, isDefaultable: false,
            about: "The serial number that the guest sees.",
            get: { ReadValue(text: $0.serial) },
            set: { $0.serial = $1?.text ?? "" }),
        ConfigurationKey(
            name: "read-only", form: .flag, standard: "false", change: .recreation, isDefaultable: true,
            about: "Refuse writes.",
            get: { ReadValue(flag: $0.readOnly) },
            set: { $0.readOnly = $1?.flag ?? false }),
        ConfigurationKey(
            name: "cache", form: .choice(["direct", "buffered"]), standard: "direct", change: .recreation,
            isDefaultable: true,
            about: "Past the host's page cache, or through it.",
            get: { ReadValue(text: $0.cache) },
            set: { $0.cache = $1?.text ?? "direct" }),
    ]

    private static let geometry: [ConfigurationKey] = [
        ConfigurationKey(
            name: "queues", form: .integer(1...64), standard: "1", change: .recreation, isDefaultable: true,
            about: "Virtqueues.",
            get: { ReadValue(integer: $0.queues) },
            set: { $0.queues = $1?.integer ?? 1 }),
        ConfigurationKey(
            name: "queue-size", form: .integer(2...1024), standard: "256", change: .recreation, isDefaultable: true,
            about: "The largest ring that is accepted, in descriptors.",
            get: { ReadValue(integer: $0.queueSize) },
            set: { $0.queueSize = $1?.integer ?? 256 }),
        ConfigurationKey(
            name: "threads", form: .integer(1...15), standard: "1", change: .recreation, isDefaultable: true,
            about: "Loop threads, at most as many as queues.",
            get: { ReadValue(integer: $0.threads) },
            set: { $0.threads = $1?.integer ?? 1 }),
        ConfigurationKey(
            name: "block-size", form: .integerChoice([512, 4096]), standard: "what the storage has",
            change: .recreation, isDefaultable: true,
            about: "Logical block size, in bytes.",
            get: { $0.blockSize.map { ReadValue(integer: $0) } },
            set: { $0.blockSize = $1?.integer }),
        ConfigurationKey(
            name: "split-rings", form: .flag, standard: "false", change: .recreation, isDefaultable: true,
            about: "Offer split rings only.",
            get: { ReadValue(flag: $0.splitRings ?? false) },
            set: { $0.splitRings = $1?.flag == true ? true : nil }),
    ]

    private static let running: [ConfigurationKey] = [
        ConfigurationKey(
            name: "poll-us", form: .integer(0...1_000_000), standard: "50", change: .liveByTakeOver,
            isDefaultable: true,
            about: "Poll at most so long before sleeping, in microseconds.",
            get: { $0.pollMicroseconds.map { ReadValue(integer: $0) } },
            set: { $0.pollMicroseconds = $1?.integer }),
        ConfigurationKey(
            name: "cpus", form: .integers(0...4095, count: 64), standard: "any", change: .liveByTakeOver,
            isDefaultable: true,
            about: "CPUs to bind the threads to, in turn.",
            get: { ($0.cpus ?? []).isEmpty ? nil : ReadValue(integers: $0.cpus ?? []) },
            set: { $0.cpus = $1.flatMap { $0.integers.isEmpty ? nil : $0.integers } }),
        ConfigurationKey(
            name: "pin-memory", form: .flag, standard: "false", change: .liveByTakeOver, isDefaultable: true,
            about: "Keep all guest memory present while it is mapped.",
            get: { ReadValue(flag: $0.pinMemory ?? false) },
            set: { $0.pinMemory = $1?.flag == true ? true : nil }),
    ]

    private static let access: [ConfigurationKey] = [
        ConfigurationKey(
            name: "socket-mode", form: .mode, standard: "0777 without batond's umask", change: .live,
            isDefaultable: true,
            about: "Permissions of the socket, octal.",
            get: { $0.socketMode.map { ReadValue(text: $0) } },
            set: { $0.socketMode = $1?.text }),
        ConfigurationKey(
            name: "socket-owner", form: .account("user"), standard: "batond's user", change: .live, isDefaultable: true,
            about: "Owner of the socket, a name or a number.",
            get: { $0.socketOwner.map { ReadValue(text: $0) } },
            set: { $0.socketOwner = $1?.text }),
        ConfigurationKey(
            name: "socket-group", form: .account("group"), standard: "batond's group", change: .live,
            isDefaultable: true,
            about: "Group of the socket, a name or a number.",
            get: { $0.socketGroup.map { ReadValue(text: $0) } },
            set: { $0.socketGroup = $1?.text }),
    ]

    private static let limits: [ConfigurationKey] = [
        ConfigurationKey(
            name: "cpu-weight", form: .integer(1...10_000), standard: "100", change: .live, isDefaultable: true,
            about: "The workers' share of the CPUs (`cpu.weight` of their control group).",
            get: { $0.cpuWeight.map { ReadValue(integer: $0) } },
            set: { $0.cpuWeight = $1?.integer }),
        ConfigurationKey(
            name: "memory-max", form: .bytes(16 << 20...1 << 50), standard: "no limit", change: .live,
            isDefaultable: true,
            about:
                "The most memory that the workers may have (`memory.max`), with guest memory that they touch first.",
            get: { $0.memoryMax.map { ReadValue(integer: Int(clamping: $0)) } },
            set: { $0.memoryMax = $1.map { UInt64($0.integer) } }),
        ConfigurationKey(
            name: "io-weight", form: .integer(1...10_000), standard: "100", change: .live, isDefaultable: true,
            about: "Their share of the storage (`io.weight`).",
            get: { $0.ioWeight.map { ReadValue(integer: $0) } },
            set: { $0.ioWeight = $1?.integer }),
        ConfigurationKey(
            name: "limit", form: .limit, standard: "no limit", change: .live, isDefaultable: true,
            about: "The most that the guest may have done in a second, as in `baton limit`.",
            get: { LimitForm.entries(of: $0.limit).map { ReadValue(entries: $0) } },
            set: { $0.limit = $1.flatMap { LimitForm.info($0.entries) } }),
        ConfigurationKey(
            name: "on-enospc", form: .choice(["report", "hold"]), standard: "report", change: .live,
            isDefaultable: true,
            about: "A request that finds no room on the host is answered with an error, or waits for room.",
            get: { ReadValue(text: $0.onEnospc ?? "report") },
            set: { $0.onEnospc = $1?.text == "hold" ? "hold" : nil }),
    ]
}

// MARK: - For people

extension ConfigurationKey {
    /// The table of docs/configuration.md.
    public static var documentation: String {
        let rows = all.map { key in
            [
                "`\(key.name)`", key.range, key.standard, key.isDefaultable ? "yes" : "no", key.change.rawValue,
                key.about,
            ]
        }
        let head = [
            ["Key", "Takes", "Default", "In `[defaults]`", "Live", "What"],
            Array(repeating: "---", count: 6),
        ]
        return (head + rows).map { "| \($0.joined(separator: " | ")) |\n" }.joined()
    }

    /// What a disk has of it, for people.
    func text(of disk: DiskParameters) -> String {
        guard let value = get(disk) else { return standard }
        return switch form {
        case .flag: "\(value.flag)"
        case .integer, .integerChoice, .bytes: "\(value.integer)"
        case .limit: LimitForm.text(value.entries)
        case .integers: value.integers.map(String.init).joined(separator: ",")
        case .serial where value.text.isEmpty: standard
        case .choice, .path, .serial, .mode, .account: value.text
        }
    }
}
