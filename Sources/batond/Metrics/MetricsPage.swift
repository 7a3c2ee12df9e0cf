internal import Platform
internal import SupervisorRuntime
internal import Telemetry

/// All metrics of all devices, as a scraper reads them. docs/seeing.md lists them.
struct MetricsPage {
    private var text = MetricsText()
    private let devices: [(status: DeviceStatus, reading: StatisticsReading)]

    /// - Parameter version: of this supervisor.
    init(_ statuses: [DeviceStatus], version: String) {
        devices = statuses.map { ($0, $0.statistics.read(at: monotonicNanoseconds())) }
        text.begin("baton_build_info", .gauge, "The supervisor's version; always 1.")
        text.sample([("version", version)], 1)
        text.begin("baton_devices", .gauge, "Devices in custody.")
        text.sample([], UInt64(statuses.count))
        writeStates()
        writeLives()
        writeRequests()
        writeStorage()
    }

    var bytes: [UInt8] { Array(text.text.utf8) }

    // MARK: Parts

    private mutating func writeStates() {
        each("baton_device_up", .gauge, "1 if a worker serves the device, 0 if none does.") { status, _ in
            status.activeWorker == nil ? 0 : 1
        }
        each("baton_device_connected", .gauge, "1 if a front-end is connected, 0 if none is.") { status, _ in
            status.isConnected ? 1 : 0
        }
        each("baton_device_standbys", .gauge, "Workers that stand by to take the device over.") { status, _ in
            UInt64(status.workers.count { $0.phase == .standby })
        }
        each("baton_device_problem", .gauge, "1 if something is wrong that `baton status` tells, else 0.") {
            status, _ in
            status.problem == nil ? 0 : 1
        }
        text.begin(
            "baton_device_worker_cpu_seconds_total", .counter,
            "CPU time of the worker that has the device; begins anew with each worker.")
        for (status, _) in devices {
            guard let cpu = status.activeWorker.flatMap({ processCPUNanoseconds($0.process) }) else { continue }
            text.sample("", [label(status)], MetricsText.seconds(cpu))
        }
    }

    private mutating func writeLives() {
        each("baton_device_generation", .gauge, "The number of the worker that has had the device last.") { status, _ in
            status.generation
        }
        each("baton_device_deaths_total", .counter, "Workers that died while they had the device.") { status, _ in
            UInt64(max(0, status.takeOvers))
        }
        each("baton_device_handovers_total", .counter, "Times that a worker gave the device to another.") {
            _, reading in
            reading.gaps[.handOver] ?? 0
        }
        each("baton_device_connections_total", .counter, "Front-ends that have connected.") { status, _ in
            UInt64(max(0, status.connections))
        }
        each(
            "baton_device_given_up_requests_total", .counter,
            "Requests that were answered with an error because workers died over them."
        ) { status, _ in status.givenUp }
        text.begin(
            "baton_device_last_gap_seconds", .gauge,
            "How long the device was without a worker when it last changed hands, by cause.")
        for (status, reading) in devices {
            guard let gap = reading.lastGap else { continue }
            let cause = ("cause", gap.cause == .death ? "death" : "hand-over")
            text.sample("", [label(status), cause], MetricsText.seconds(gap.nanoseconds))
        }
    }

    private mutating func writeRequests() {
        eachKind("baton_device_requests_total", "Requests returned to the guest, by kind.", \.operations)
        eachKind(
            "baton_device_request_bytes_total", "Bytes moved, discarded or zeroed by requests that succeeded.", \.bytes)
        eachKind(
            "baton_device_request_errors_total",
            "Requests answered with an error; of a share also those that a file system has every day.", \.errors)
        text.begin(
            "baton_device_request_duration_seconds", .histogram,
            "From when a request was taken until the guest was shown its answer, take-overs included.")
        for (status, reading) in devices {
            for kind in StatisticsReading.timedKinds {
                guard let latencies = reading.latencies[kind] else { continue }
                text.histogram(
                    [label(status), ("kind", kind.label(of: status))], latencies, sum: reading.counts[kind].nanoseconds)
            }
        }
        each("baton_device_requests_in_flight", .gauge, "Requests taken and not returned yet.") { _, reading in
            reading.inFlight
        }
        text.begin(
            "baton_device_oldest_request_seconds", .gauge, "Age of the oldest request in flight; 0 when there is none.")
        for (status, reading) in devices {
            text.sample("", [label(status)], MetricsText.seconds(reading.oldest ?? 0))
        }
        writeLimits()
        writeTables()
        each("baton_device_malformed_requests_total", .counter, "Requests refused because they make no sense.") {
            _, reading in reading.counts.malformed
        }
        each("baton_device_interrupts_total", .counter, "Interrupts sent to the guest.") { _, reading in
            reading.counts.interrupts
        }
    }

    private mutating func writeLimits() {
        text.begin("baton_device_iops_limit", .gauge, "Requests that the device may do in a second.")
        for (status, _) in devices {
            if let limit = status.configuration.rates?.operations, limit > 0 { text.sample([label(status)], limit) }
        }
        text.begin("baton_device_bandwidth_limit_bytes", .gauge, "Bytes that it may read and write in a second.")
        for (status, _) in devices {
            if let limit = status.configuration.rates?.bandwidth, limit > 0 { text.sample([label(status)], limit) }
        }
        text.begin(
            "baton_device_throttled_seconds_total", .counter,
            "Time in which requests were there and had to wait for a limit, added up over the queues.")
        for (status, reading) in devices {
            text.sample("", [label(status)], MetricsText.seconds(reading.throttled))
        }
        each("baton_device_requests_held", .gauge, "Requests that wait for room on the host.") { _, reading in
            reading.held
        }
    }

    private mutating func writeTables() {
        let shares = devices.filter { $0.0.configuration.share != nil }
        text.begin("baton_share_nodes", .gauge, "Files, directories and other nodes that the driver knows.")
        for (status, reading) in shares { text.sample([label(status)], reading.nodes) }
        text.begin("baton_share_open_files", .gauge, "Files and directories that the driver has open.")
        for (status, reading) in shares { text.sample([label(status)], reading.openFiles) }
    }

    private mutating func writeStorage() {
        text.begin(
            "baton_device_storage_faults_total", .counter,
            "What the storage was found to do: no_space, unexpected_end and error fail a request, the others do not.")
        for (status, reading) in devices {
            for fault in StorageFault.allCases where fault != .bounce {
                text.sample([label(status), ("fault", fault.label)], reading.faults[fault] ?? 0)
            }
        }
        each(
            "baton_device_bounced_parts_total", .counter,
            "Parts of requests that went over a bounce buffer, because guest memory was not aligned."
        ) { _, reading in reading.faults[.bounce] ?? 0 }
        each("baton_device_stale_completions_total", .counter, "Completions that matched no request.") { _, reading in
            reading.counts.staleCompletions
        }
    }

    // MARK: Samples

    private func label(_ status: DeviceStatus) -> (String, String) { ("device", status.configuration.name) }

    /// A metric with one sample for each device.
    private mutating func each(
        _ name: String, _ kind: MetricsText.Kind, _ help: String,
        _ value: (DeviceStatus, StatisticsReading) -> UInt64
    ) {
        text.begin(name, kind, help)
        for (status, reading) in devices { text.sample([label(status)], value(status, reading)) }
    }

    /// A counter with one sample for each kind of request. Both kinds of a disk's WRITE_ZEROES are one.
    private mutating func eachKind(_ name: String, _ help: String, _ value: KeyPath<KindCounts, UInt64>) {
        text.begin(name, .counter, help)
        for (status, reading) in devices {
            let isDisk = status.configuration.share == nil
            for kind in RequestKind.allCases where !isDisk || kind != .writeZeroesUnmapping {
                var sum = reading.counts[kind][keyPath: value]
                if isDisk, kind == .writeZeroes { sum &+= reading.counts[.writeZeroesUnmapping][keyPath: value] }
                text.sample([label(status), ("kind", kind.label(of: status))], sum)
            }
        }
    }
}

extension DeviceStatus {
    /// The worker that has the device, as far as it is known.
    var activeWorker: DeviceMachine.Worker? { workers.first { $0.phase == .active || $0.phase == .freezing } }
}

extension RequestKind {
    fileprivate func label(of status: DeviceStatus) -> String {
        let isShare = status.configuration.share != nil
        return switch self {
        case .read: "read"
        case .write: "write"
        case .flush: isShare ? "sync" : "flush"
        case .identify: isShare ? "lookup" : "identify"
        case .discard: isShare ? "change" : "discard"
        case .writeZeroes: isShare ? "open" : "write_zeroes"
        case .writeZeroesUnmapping: isShare ? "attribute" : "write_zeroes"
        case .refused: isShare ? "other" : "refused"
        }
    }
}

extension StorageFault {
    fileprivate var label: String {
        switch self {
        case .noSpace: "no_space"
        case .retry: "retry"
        case .shortTransfer: "short_transfer"
        case .unexpectedEnd: "unexpected_end"
        case .error: "error"
        case .bounce: "bounce"
        }
    }
}
