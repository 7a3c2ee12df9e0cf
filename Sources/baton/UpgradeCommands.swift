internal import ArgumentParser
internal import ControlAPI
internal import Foundation
internal import Glibc
internal import Platform

struct Upgrade: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Replace the workers' program, one device at a time, under load.",
        discussion: "Exit status 0 only when every device runs the new program.")

    @Argument(help: "The devices.")
    var devices: [String] = []

    @Flag(help: "All devices, and those that are made later.")
    var all = false

    @Option(help: "The new worker (what lies at the present one's path now).")
    var worker: String?

    @Option(help: "So many devices first; the others when these have run it for 5 s.")
    var canary = 0

    @Flag(help: "Start each new worker and ask whether it could take over; go no further.")
    var dryRun = false

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        if devices.isEmpty != all { throw ValidationError("Name devices, or give --all") }
    }

    func run() throws {
        let parameters = UpgradeParameters(
            devices: devices, worker: worker.map(absolute), canary: canary, dryRun: dryRun)
        try connection.run { client in
            let result = try client.call(.upgrade, parameters, as: UpgradeResult.self) { line in
                if !connection.json { show(try JSONRPC.parameters(of: line, as: ProgressInfo.self)) }
            }
            if connection.json { return try printJSON(result) }
            let verb = dryRun ? "could be upgraded" : "upgraded"
            printText("\(result.devices.count) devices \(verb)\n", to: STDOUT_FILENO)
        }
    }

    private func show(_ progress: ProgressInfo) {
        let outcome = progress.failure.map { "failed: \($0)" } ?? "ok"
        printText("\(progress.device): \(outcome) (\(progress.milliseconds) ms)\n", to: STDOUT_FILENO)
    }
}

struct Events: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print what happens to devices.")

    @Flag(help: "Go on until interrupted; else print what is remembered.")
    var follow = false

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            _ = try client.call(.events, Empty(), as: Empty.self)
            let show = { (line: Data) in try self.show(JSONRPC.parameters(of: line, as: EventInfo.self)) }
            if follow { try client.follow(show) }
            // The history is sent before the answer to what is asked next.
            _ = try client.call(.status, StatusParameters(), as: [DeviceInfo].self, notified: show)
        }
    }

    private func show(_ event: EventInfo) throws {
        if connection.json { return try printJSON(event) }
        let time = Date(timeIntervalSince1970: Double(event.time) / 1000)
        let worker = event.worker.map { " worker \($0)" } ?? ""
        let stamp = time.formatted(.iso8601.year().month().day().time(includingFractionalSeconds: true))
        printText("\(stamp) \(event.device)\(worker): \(event.kind) \(event.text)\n", to: STDOUT_FILENO)
    }
}
