internal import ArgumentParser
internal import ControlAPI
internal import Foundation
internal import Glibc
internal import Platform

struct Top: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Watch what the devices do: a table that is drawn anew every second.",
        discussion: """
            Rates and latencies are of the time since the table before. IOPS counts requests of all kinds, of a \
            share also lookups and changes. READ/S and WRITE/S are bytes; P50 and P99 are \
            of reads and writes together, as their guests have seen them, take-overs included. Where standard output \
            is no terminal, one table follows the other. docs/seeing.md explains each column.
            """)

    @Argument(help: "The devices; all if absent.")
    var names: [String] = []

    @Option(help: "Seconds between two tables, 0.1 to 3600.")
    var interval = 1.0

    @Option(help: "So many tables, then end (without end).")
    var count: Int?

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        guard (0.1...3600).contains(interval) else { throw ValidationError("--interval is 0.1 to 3600 seconds") }
        if let count, count < 1 { throw ValidationError("--count is at least 1") }
    }

    func run() throws {
        try connection.run { client in
            var client = client
            var before = try look(&client)
            let redraws = isatty(STDOUT_FILENO) == 1 && !connection.json
            var left = count ?? .max
            while left > 0 {
                left -= 1
                pause(milliseconds: Int32(interval * 1000))
                let now = try look(&client)
                let rows = now.values.map { DeviceRow($0, since: before[$0.disk.name]) }.sorted { $0.name < $1.name }
                if connection.json { try rows.forEach(printJSON) } else { show(rows, redraws: redraws) }
                before = now
            }
        }
    }

    /// The devices by name. A supervisor that is replaced meanwhile is waited for.
    private func look(_ client: inout Client) throws -> [String: DeviceInfo] {
        let parameters = StatusParameters(statistics: true)
        let devices: [DeviceInfo]
        do {
            devices = try client.call(.status, parameters, as: [DeviceInfo].self)
        } catch let fault as JSONRPC.Fault {
            throw fault
        } catch {
            client = try Client(connection, patientlyFor: 5_000)
            devices = try client.call(.status, parameters, as: [DeviceInfo].self)
        }
        let wanted = devices.filter { names.isEmpty || names.contains($0.disk.name) }
        for name in names where !wanted.contains(where: { $0.disk.name == name }) {
            throw JSONRPC.Fault(JSONRPC.Fault.refused, "there is no device '\(name)'")
        }
        return Dictionary(wanted.map { ($0.disk.name, $0) }) { first, _ in first }
    }

    private func show(_ rows: [DeviceRow], redraws: Bool) {
        var text = table([DeviceRow.titles] + rows.map(\.cells))
        // From the upper left corner; each line and what is below it is cleared.
        if redraws {
            text = "\u{1b}[H" + text.replacing("\n", with: "\u{1b}[K\n") + "\u{1b}[J"
        } else {
            text += "\n"
        }
        printText(text, to: STDOUT_FILENO)
    }
}

extension Client {
    /// - Parameter milliseconds: how long a supervisor may take to come back.
    convenience init(_ options: ConnectionOptions, patientlyFor milliseconds: UInt64) throws {
        let end = monotonicNanoseconds() + milliseconds * 1_000_000
        while monotonicNanoseconds() < end {
            if (try? Client(options)) != nil { break }
            pause(milliseconds: 50)
        }
        try self.init(options)
    }
}

/// What a device has done between two looks. The names are part of the interface of `baton top --json`.
struct DeviceRow: Encodable {
    var name: String
    var state: String
    /// Seconds between the two looks.
    var seconds: Double
    /// Requests of all kinds, in a second.
    var iops: Double
    var readBytesPerSecond: Double
    var writeBytesPerSecond: Double
    /// Of reads and writes, in nanoseconds; absent when there were none.
    var p50: UInt64?
    var p99: UInt64?
    var inFlight: UInt64
    /// How long the oldest has been in flight, in nanoseconds.
    var oldest: UInt64?
    var generation: UInt64
    var deaths: Int
    var lastGap: GapInfo?
    /// How much of the time requests waited for the device's limit, 0 to 1 for each queue.
    var throttled: Double
    /// Requests that wait for room on the host.
    var held: UInt64
    /// Of one processor, 0 to 1 and more; absent when another worker had the device before.
    var workerCPU: Double?

    init(_ device: DeviceInfo, since before: DeviceInfo?) {
        name = device.disk.name
        state = device.state
        generation = device.generation
        deaths = device.takeOvers
        let now = device.statistics
        (inFlight, oldest, lastGap) = (now?.inFlight ?? 0, now?.oldest, now?.lastGap)
        (throttled, held) = (0, now?.held ?? 0)
        (seconds, iops, readBytesPerSecond, writeBytesPerSecond) = (0, 0, 0, 0)
        // A device that was made anew counts from 0.
        guard let now, let then = before?.statistics, now.time > then.time, now.operations >= then.operations else {
            return
        }
        let seconds = Double(now.time - then.time) / 1e9
        func rate(_ now: UInt64, _ then: UInt64) -> Double { now > then ? Double(now - then) / seconds : 0 }
        self.seconds = seconds
        iops = rate(now.operations, then.operations)
        readBytesPerSecond = rate(now.reads.bytes, then.reads.bytes)
        writeBytesPerSecond = rate(now.writes.bytes, then.writes.bytes)
        throttled = rate(now.throttled, then.throttled) / 1e9
        let latencies = [(now.reads.latency, then.reads.latency), (now.writes.latency, then.writes.latency)]
            .compactMap { now, then in now.flatMap { now in then.map { now.since($0) } } }
        if let first = latencies.first {
            let both = latencies.dropFirst().reduce(first) { $0.adding($1) }
            (p50, p99) = (both.p50, both.p99)
        }
        let isSame = device.pid(of: "active") == before?.pid(of: "active")
        if isSame, let cpu = now.workerCPU, let earlier = then.workerCPU { workerCPU = rate(cpu, earlier) / 1e9 }
    }

    static let titles = [
        "NAME", "STATE", "IOPS", "READ/S", "WRITE/S", "P50", "P99", "LIMITED", "INFLIGHT", "OLDEST", "GEN", "DEATHS",
        "GAP", "CPU",
    ]

    var cells: [String] {
        func or(_ text: String?) -> String { text ?? "-" }
        return [
            name, state, String(format: "%.0f", iops), byteCount(readBytesPerSecond), byteCount(writeBytesPerSecond),
            or(p50.map(duration)), or(p99.map(duration)),
            throttled > 0 ? String(format: "%.0f%%", throttled * 100) : "-", "\(inFlight)", or(oldest.map(duration)),
            "\(generation)",
            "\(deaths)", or(lastGap.map { duration($0.nanoseconds) }),
            or(workerCPU.map { String(format: "%.0f%%", $0 * 100) }),
        ]
    }
}
