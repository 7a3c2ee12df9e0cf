internal import ControlAPI

// What disks and shares have in common.

extension ConfigurationKey {
    static let socket =
        ConfigurationKey(
            name: "socket", form: .path(limit: 106), standard: "NAME.sock in batond's state directory",
            change: .recreation, isDefaultable: false,
            about: "Where front-ends connect.",
            get: { $0.socket.map { ReadValue(text: $0) } },
            set: { $0.socket = $1?.text })

    static func readOnly(_ kind: DeviceKind) -> ConfigurationKey {
        ConfigurationKey(
            name: "read-only", form: .flag, standard: "false", change: .recreation, isDefaultable: true,
            about: kind == .disk ? "Refuse writes." : "Refuse all changes.",
            get: { ReadValue(flag: $0.readOnly) },
            set: { $0.readOnly = $1?.flag ?? false })
    }

    static func queues(_ kind: DeviceKind) -> [ConfigurationKey] {
        [
            ConfigurationKey(
                name: "queues", form: .integer(1...kind.maximumQueues), standard: "1", change: .recreation,
                isDefaultable: true,
                about: kind == .disk ? "Virtqueues." : "Request queues.",
                get: { ReadValue(integer: $0.queues) },
                set: { $0.queues = $1?.integer ?? 1 }),
            ConfigurationKey(
                name: "queue-size", form: .integer(2...1024), standard: "\(kind.standardQueueSize)",
                change: .recreation, isDefaultable: true,
                about: "The largest ring that is accepted, in descriptors.",
                get: { ReadValue(integer: $0.queueSize) },
                set: { $0.queueSize = $1?.integer ?? kind.standardQueueSize }),
            ConfigurationKey(
                name: "threads", form: .integer(1...kind.maximumThreads), standard: "1", change: .recreation,
                isDefaultable: true,
                about: "Loop threads, at most as many as queues.",
                get: { ReadValue(integer: $0.threads) },
                set: { $0.threads = $1?.integer ?? 1 }),
        ]
    }

    static let splitRings =
        ConfigurationKey(
            name: "split-rings", form: .flag, standard: "false", change: .recreation, isDefaultable: true,
            about: "Offer split rings only.",
            get: { ReadValue(flag: $0.splitRings ?? false) },
            set: { $0.splitRings = $1?.flag == true ? true : nil })

    static let running: [ConfigurationKey] = [
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

    static let access: [ConfigurationKey] = [
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

    /// Of the control group of its workers.
    static let resources: [ConfigurationKey] = [
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
    ]

    static let limit =
        ConfigurationKey(
            name: "limit", form: .limit, standard: "no limit", change: .live, isDefaultable: true,
            about: "The most that the guest may have done in a second, as in `baton limit`.",
            get: { LimitForm.entries(of: $0.limit).map { ReadValue(entries: $0) } },
            set: { $0.limit = $1.flatMap { LimitForm.info($0.entries) } })
}
