internal import ArgumentParser
internal import Configuration
internal import ControlAPI
internal import Foundation
internal import Glibc
internal import Platform

struct Create: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a device and start serving it.", subcommands: [CreateDisk.self, CreateShare.self])
}

struct CreateDisk: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "disk", abstract: "Make a virtio-blk disk.")

    @Argument(help: "Its name: letters, digits, dots, dashes and underscores.")
    var name: String

    @Option(help: "A raw image or a block device.")
    var file: String?

    @Flag(name: .customLong("null"), help: "Keep nothing: for measurements, instead of --file.")
    var keepsNothing = false

    @Option(help: "Where front-ends connect (NAME.sock in batond's state directory).")
    var socket: String?

    @Option(help: "Queues, 1 to 64.")
    var queues = 1

    @Option(help: "The largest ring that is accepted, 2 to 1024.")
    var queueSize = 256

    @Option(help: "Loop threads, 1 to 15.")
    var threads = 1

    @Flag(help: "Refuse writes.")
    var readOnly = false

    @Option(help: "direct: past the host's page cache; buffered: through it.")
    var cache = "direct"

    @Option(help: "Serial number, at most 20 characters.")
    var serial = ""

    @Option(help: "Logical block size, 512 or 4096 (what the storage has).")
    var blockSize: Int?

    @OptionGroup var common: CommonOptions

    @OptionGroup var resources: ResourceOptions

    @OptionGroup var limits: LimitOptions

    @Option(help: "A request that finds no room on the host: report (an I/O error) or hold (it waits).")
    var onEnospc = "report"

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        if file == nil, !keepsNothing { throw ValidationError("Say what to serve: --file PATH") }
        if file != nil, keepsNothing { throw ValidationError("Give --file PATH or --null, not both") }
    }

    private var disk: DeviceParameters {
        var disk = DeviceParameters(
            name: name, file: file.map(absolute), socket: socket.map(absolute), queues: queues, queueSize: queueSize,
            threads: threads, readOnly: readOnly, cache: cache, serial: serial, blockSize: blockSize)
        common.apply(to: &disk)
        resources.apply(to: &disk)
        limits.apply(to: &disk)
        disk.onEnospc = onEnospc == "report" ? nil : onEnospc
        return disk
    }

    func run() throws {
        try connection.run { client in
            let device = try client.call(.create, disk, as: DeviceInfo.self)
            if connection.json { return try printJSON(device) }
            printText("\(name): front-ends connect at \(device.disk.socket ?? "")\n", to: STDOUT_FILENO)
        }
    }
}

struct Delete: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "End a device. Its front-end is disconnected; its image stays.")

    @Argument(help: "The device.")
    var name: String

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let result = try client.call(.delete, NameParameters(name: name), as: Empty.self)
            if connection.json { return try printJSON(result) }
            printText("\(name): deleted\n", to: STDOUT_FILENO)
        }
    }
}

struct Kill: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "SIGKILL the worker that has a device: for drills. Its guest sees one slow request.")

    @Argument(help: "The device.")
    var name: String

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let result = try client.call(.kill, NameParameters(name: name), as: KillResult.self)
            if connection.json { return try printJSON(result) }
            printText("\(name): killed process \(result.pid)\n", to: STDOUT_FILENO)
        }
    }
}

struct ListDevices: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List the devices, one a line.")

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let devices = try client.call(.status, StatusParameters(), as: [DeviceInfo].self)
            if connection.json { return try devices.forEach(printJSON) }
            var rows = [["NAME", "STATE", "WORKER", "STANDBY", "LIMIT", "FILE"]]
            for device in devices {
                rows.append([
                    device.disk.name, device.state, device.pid(of: "active"), device.pid(of: "standby"),
                    device.disk.limit?.text ?? "-", device.whatItServes,
                ])
            }
            printText(table(rows), to: STDOUT_FILENO)
        }
    }
}

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say how devices are. Exit status 3 when one has failed: no worker can have it.")

    @Argument(help: "The device; all if absent.")
    var name: String?

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let devices = try client.call(
                .status, StatusParameters(name: name, statistics: true), as: [DeviceInfo].self)
            // A supervisor of an earlier version has no configuration.
            let configuration =
                connection.json ? nil : try? client.call(.configuration, Empty(), as: ConfigurationInfo.self).last
            for device in devices {
                let text = device.description + device.activity + device.advice
                if connection.json { try printJSON(device) } else { printText(text, to: STDOUT_FILENO) }
                let held = configuration?.held.filter { $0.device == device.disk.name } ?? []
                for change in held { printText("  configuration: \(change.explanation ?? "")\n", to: STDOUT_FILENO) }
            }
            if let configuration, name == nil { show(configuration) }
            if devices.contains(where: { $0.state == "failed" }) { throw ExitCode(3) }
        }
    }
}

extension Status {
    /// What is wrong with the configuration as it was applied last.
    private func show(_ configuration: ReloadResult) {
        let wrong = configuration.errors + configuration.failures
        guard !wrong.isEmpty else { return }
        let lines = ["configuration: it was not applied in full: see baton check"] + wrong.map { "  \($0)" }
        printText(lines.map { "\($0)\n" }.joined(), to: STDOUT_FILENO)
    }
}

extension DeviceInfo {
    /// The image or the directory, and where that is mounted; "-": nothing.
    var whatItServes: String {
        guard let share = disk.share else { return disk.file ?? "-" }
        return share.directory + (share.mountPoint.map { " at \($0)" } ?? "")
    }

    func pid(of phase: String) -> String { workers.first { $0.phase == phase }.map { "\($0.pid)" } ?? "-" }

    /// For people.
    var description: String {
        var lines = ["\(disk.name): \(state)"]
        if let problem { lines.append("  problem: \(problem)") }
        let readOnly = disk.readOnly ? ", read-only" : ""
        lines.append(
            disk.share.map { "  directory: \($0.directory) (tag \($0.tag)\(readOnly))" }
                ?? "  file: \(disk.file ?? "none; it keeps nothing") (\(disk.cache)\(readOnly))")
        for notice in notices ?? [] { lines.append("  notice: \(notice)") }
        if let origin = disk.origin { lines.append("  configured in: \(origin)") }
        lines.append(
            disk.share?.mountPoint.map { "  mounted at: \($0)" }
                ?? "  socket: \(disk.socket ?? "-")\(disk.accessDescription)")
        let rings = disk.splitRings == true ? ", split rings only" : ""
        lines.append("  queues: \(disk.queues) of \(disk.queueSize)\(rings), threads: \(disk.threadsDescription)")
        if let limit = disk.limit { lines.append("  limit: \(limit.text)") }
        if disk.onEnospc == "hold" { lines.append("  without room on the host: requests wait for it") }
        if disk.pinMemory == true { lines.append("  guest memory: kept present") }
        for worker in workers {
            let version = worker.version.isEmpty ? "" : ", version \(worker.version)"
            lines.append("  worker \(worker.id): process \(worker.pid), \(worker.phase)\(version)")
        }
        if let upgrade { lines.append("  upgrade: \(upgrade)") }
        if let lastDeath { lines.append("  last death: \(lastDeath)") }
        if givenUp > 0 { lines.append("  requests given up: \(givenUp)") }
        lines.append("  take-overs: \(takeOvers), connections: \(connections), requests of this worker: \(completed)")
        return lines.joined(separator: "\n") + "\n"
    }
}

extension DeviceParameters {
    /// What was asked for, behind the socket's path.
    fileprivate var accessDescription: String {
        let parts = [("mode", socketMode), ("owner", socketOwner), ("group", socketGroup)]
        let asked = parts.compactMap { name, value in value.map { "\(name) \($0)" } }
        return asked.isEmpty ? "" : " (\(asked.joined(separator: ", ")))"
    }

    fileprivate var threadsDescription: String {
        var text = "\(threads)"
        if let cpus, !cpus.isEmpty { text += " on CPUs \(cpus.map(String.init).joined(separator: ","))" }
        if let pollMicroseconds { text += ", polling at most \(pollMicroseconds) us" }
        return text
    }
}

/// A list such as 0,2,4; nil for what is none.
func cpuNumbers(_ list: String) -> [Int]? {
    let numbers = list.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    return numbers.contains(nil) ? nil : numbers.compactMap(\.self)
}

/// Columns under each other.
func table(_ rows: [[String]]) -> String {
    let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
        let cells = zip(row, widths).map { $0.padding(toLength: max($1, $0.count), withPad: " ", startingAt: 0) }
        return cells.joined(separator: "  ").trimmingCharacters(in: .whitespaces) + "\n"
    }.joined()
}
