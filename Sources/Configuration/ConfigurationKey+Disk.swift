internal import ControlAPI

// What disks alone have, and all that they have.

extension ConfigurationKey {
    static let disk: [ConfigurationKey] =
        [file, null, socket, serial, readOnly(.disk), diskCache] + queues(.disk) + [blockSize, splitRings] + running
        + access + resources + [limit, onEnospc]

    private static let file =
        ConfigurationKey(
            name: "file", form: .path(limit: 4095), standard: "none", change: .recreation, isDefaultable: false,
            about: "The image: a raw file or a block device.",
            get: { $0.file.map { ReadValue(text: $0) } },
            set: { $0.file = $1?.text })

    private static let null =
        ConfigurationKey(
            name: "null", form: .flag, standard: "false", change: .recreation, isDefaultable: false,
            about: "Keep nothing: for measurements, instead of `file`.",
            get: { ReadValue(flag: $0.file == nil) },
            set: { _, _ in })

    private static let serial =
        ConfigurationKey(
            name: "serial", form: .serial, standard: "none", change: .recreation, isDefaultable: false,
            about: "The serial number that the guest sees.",
            get: { ReadValue(text: $0.serial) },
            set: { $0.serial = $1?.text ?? "" })

    private static let diskCache =
        ConfigurationKey(
            name: "cache", form: .choice(["direct", "buffered"]), standard: "direct", change: .recreation,
            isDefaultable: true,
            about: "Past the host's page cache, or through it.",
            get: { ReadValue(text: $0.cache) },
            set: { $0.cache = $1?.text ?? "direct" })

    private static let blockSize =
        ConfigurationKey(
            name: "block-size", form: .integerChoice([512, 4096]), standard: "what the storage has",
            change: .recreation, isDefaultable: true,
            about: "Logical block size, in bytes.",
            get: { $0.blockSize.map { ReadValue(integer: $0) } },
            set: { $0.blockSize = $1?.integer })

    private static let onEnospc =
        ConfigurationKey(
            name: "on-enospc", form: .choice(["report", "hold"]), standard: "report", change: .live,
            isDefaultable: true,
            about: "A request that finds no room on the host is answered with an error, or waits for room.",
            get: { ReadValue(text: $0.onEnospc ?? "report") },
            set: { $0.onEnospc = $1?.text == "hold" ? "hold" : nil })
}
