internal import ArgumentParser
internal import Configuration
internal import ControlAPI
internal import Glibc
internal import Platform

/// What the workers of a device may have of the host, as options.
struct ResourceOptions: ParsableArguments {
    @Option(help: "The workers' share of the CPUs, 1 to 10000 (100).")
    var cpuWeight: Int?

    @Option(help: "The most memory that the workers may have, such as 512M (no limit).")
    var memoryMax: String?

    @Option(help: "The workers' share of the storage, 1 to 10000 (100).")
    var ioWeight: Int?

    func validate() throws {
        if let memoryMax, ByteCount(memoryMax) == nil {
            throw ValidationError("--memory-max is a size such as 512M, not '\(memoryMax)'")
        }
    }

    func apply(to device: inout DeviceParameters) {
        (device.cpuWeight, device.ioWeight) = (cpuWeight, ioWeight)
        device.memoryMax = memoryMax.flatMap { ByteCount($0) }.map { UInt64($0.bytes) }
    }
}

/// Rate limits, as options.
struct LimitOptions: ParsableArguments {
    @Option(help: "Requests of all kinds in a second, 1 to 10000000; 0: no limit.")
    var iops: UInt64?

    @Option(help: "Requests that may come at once after a rest (what --iops gives in 0.1 s).")
    var iopsBurst: UInt64?

    @Option(help: "Bytes that are read and written in a second, such as 100M; 0: no limit.")
    var bandwidth: String?

    @Option(help: "Bytes that may come at once after a rest (what --bandwidth gives in 0.1 s).")
    var bandwidthBurst: String?

    func validate() throws {
        for (name, text) in [("--bandwidth", bandwidth), ("--bandwidth-burst", bandwidthBurst)] {
            if let text, ByteCount(text) == nil {
                throw ValidationError("\(name) is a number of bytes such as 100M, not '\(text)'")
            }
        }
    }

    private func bytes(_ text: String?) -> UInt64? { text.flatMap { ByteCount($0) }.map { UInt64($0.bytes) } }

    /// Of a device that is made: 0 is how `baton limit` says that there is none.
    func apply(to device: inout DeviceParameters) {
        let limit = LimitInfo().changed(info)
        device.limit = limit == LimitInfo() ? nil : limit
    }

    /// What was given.
    var info: LimitInfo {
        LimitInfo(
            iops: iops, iopsBurst: iopsBurst, bandwidth: bytes(bandwidth), bandwidthBurst: bytes(bandwidthBurst))
    }
}

struct Limit: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say how much a guest may have done in a second, or see it.",
        discussion: """
            What is given holds at once, what is not stays as it was; without any option the limits are shown. A limit \
            is held over every death and upgrade of a worker. Requests above it wait in the guest's queue: the guest \
            sees a slower disk, no errors. Reads and writes count together. Flushes and discards count as requests, \
            not as bytes. A device of the configuration has what that says again after `baton reload`, and after a \
            restart of batond, an upgrade of the package included: write it there to keep it.
            """)

    @Argument(help: "The device.")
    var name: String

    @OptionGroup var limits: LimitOptions

    @Flag(help: "Begin with no limits: those that are given are all.")
    var none = false

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let device: DeviceInfo
            if limits.info == LimitInfo(), !none {
                guard let found = try client.call(.status, StatusParameters(name: name), as: [DeviceInfo].self).first
                else { throw ExitCode(1) }
                device = found
            } else {
                let parameters = LimitParameters(name: name, change: limits.info, none: none)
                device = try client.call(.limit, parameters, as: DeviceInfo.self)
            }
            if connection.json { return try printJSON(device) }
            printText("\(name): \(device.disk.limit?.text ?? "no limit")\n", to: STDOUT_FILENO)
        }
    }
}

struct SetDevice: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Change what becomes of a device's requests, at once.",
        discussion: """
            --on-enospc=hold: a write that finds no room on the host waits until there is some; its guest sees a slow \
            request. --on-enospc=report: it is answered with an I/O error, also if it waits already. A device of the \
            configuration has what that says again after `baton reload`, and after a restart of batond, an upgrade of \
            the package included: write it there to keep it.
            """)

    @Argument(help: "The device.")
    var name: String

    @Option(help: "A request that finds no room on the host: report (an I/O error) or hold (it waits).")
    var onEnospc: String

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let parameters = SetParameters(name: name, onEnospc: onEnospc)
            let device = try client.call(.set, parameters, as: DeviceInfo.self)
            if connection.json { return try printJSON(device) }
            let holds = device.disk.onEnospc == "hold"
            printText(
                "\(name): a request that finds no room on the host \(holds ? "waits" : "is answered with an error")\n",
                to: STDOUT_FILENO)
        }
    }
}

struct Resume: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Try requests again at once that wait for room on the host.")

    @Argument(help: "The device.")
    var name: String

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let result = try client.call(.resume, NameParameters(name: name), as: RetryResult.self)
            if connection.json { return try printJSON(result) }
            let text =
                result.requests == 0 ? "no request waits for room" : "\(result.requests) requests are tried again"
            printText("\(name): \(text)\n", to: STDOUT_FILENO)
        }
    }
}

extension LimitInfo {
    /// For people.
    var text: String {
        func part(_ rate: String?, _ burst: String?) -> String? {
            rate.map { $0 + (burst.map { " (burst \($0))" } ?? "") }
        }
        let parts = [
            part(iops.map { "\($0) requests/s" }, iopsBurst.map { "\($0)" }),
            part(bandwidth.map { "\(byteCount($0))/s" }, bandwidthBurst.map { byteCount($0) }),
        ].compactMap(\.self)
        return parts.isEmpty ? "no limit" : parts.joined(separator: ", ")
    }
}
