internal import Configuration
internal import ControlAPI
internal import Glibc
internal import SupervisorRuntime
internal import Telemetry

// The control socket's types and the supervisor's are apart, so that either may change without the other.

extension DeviceConfiguration {
    /// - Parameter directory: where the socket lies unless it is told.
    /// - Throws: `invalid` for what is no mode, user or group.
    init(_ disk: DeviceParameters, directory: String) throws(SupervisorError) {
        guard disk.cache == "direct" || disk.cache == "buffered" else {
            throw .invalid("the cache is direct or buffered, not '\(disk.cache)'")
        }
        self.init(name: disk.name, socketPath: disk.socket ?? "\(directory)/\(disk.name).sock", imagePath: disk.file)
        isReadOnly = disk.readOnly
        isBuffered = disk.cache == "buffered"
        queueCount = disk.queues
        queueSize = disk.queueSize
        threadCount = disk.threads
        serial = disk.serial
        blockSize = disk.blockSize
        hasSplitRingsOnly = disk.splitRings
        pinsMemory = disk.pinMemory
        pollMicroseconds = disk.pollMicroseconds
        cpus = disk.cpus
        if let text = disk.socketMode {
            guard let mode = UInt32(text, radix: 8), mode <= 0o777 else {
                throw .invalid("a socket's mode is octal, such as 0660, not '\(text)'")
            }
            socketMode = mode
        }
        if let name = disk.socketOwner {
            guard let user = userNumber(name) else { throw .invalid("there is no user '\(name)'") }
            socketOwner = user
        }
        if let name = disk.socketGroup {
            guard let group = groupNumber(name) else { throw .invalid("there is no group '\(name)'") }
            socketGroup = group
        }
        let asked = ResourceLimits(cpuWeight: disk.cpuWeight, memoryBytes: disk.memoryMax, ioWeight: disk.ioWeight)
        limits = asked == ResourceLimits() ? nil : asked
        rates = disk.limit.flatMap { $0 == LimitInfo() ? nil : RateLimits($0) }
        switch disk.onEnospc {
        case nil, "report": holdsForRoom = nil
        case "hold": holdsForRoom = true
        case .some(let other): throw .invalid("without room a request is to report or hold, not '\(other)'")
        }
        if let asked = disk.share {
            var settings = ShareSettings(directory: asked.directory, tag: asked.tag)
            settings.options = asked.options
            if let files = asked.maxFiles { settings.maximumFiles = files }
            settings.mountPoint = asked.mountPoint
            share = settings
        }
        origin = disk.origin
    }
}

extension RateLimits {
    init(_ limit: LimitInfo) {
        self.init(
            operations: limit.iops ?? 0, operationBurst: limit.iopsBurst ?? 0, bandwidth: limit.bandwidth ?? 0,
            bandwidthBurst: limit.bandwidthBurst ?? 0)
    }
}

extension LimitInfo {
    init(_ rates: RateLimits) {
        func given(_ value: UInt64) -> UInt64? { value == 0 ? nil : value }
        self.init(
            iops: given(rates.operations), iopsBurst: given(rates.operationBurst), bandwidth: given(rates.bandwidth),
            bandwidthBurst: given(rates.bandwidthBurst))
    }
}

/// A user, by name or number, and its group.
func userNumbers(_ name: String) -> (user: UInt32, group: UInt32)? {
    if let number = UInt32(name) { return (number, number) }
    return unsafe getpwnam(name).map { (unsafe $0.pointee.pw_uid, unsafe $0.pointee.pw_gid) }
}

extension DeviceParameters {
    init(_ configuration: DeviceConfiguration) {
        self.init(
            name: configuration.name, file: configuration.imagePath, socket: configuration.socketPath,
            queues: configuration.queueCount, queueSize: configuration.queueSize, threads: configuration.threadCount,
            readOnly: configuration.isReadOnly, cache: configuration.isBuffered ? "buffered" : "direct",
            serial: configuration.serial, blockSize: configuration.blockSize)
        splitRings = configuration.hasSplitRingsOnly
        pinMemory = configuration.pinsMemory
        pollMicroseconds = configuration.pollMicroseconds
        cpus = configuration.cpus
        socketMode = configuration.socketMode.map { "0\(String($0, radix: 8))" }
        socketOwner = configuration.socketOwner.map { "\($0)" }
        socketGroup = configuration.socketGroup.map { "\($0)" }
        cpuWeight = configuration.limits?.cpuWeight
        memoryMax = configuration.limits?.memoryBytes
        ioWeight = configuration.limits?.ioWeight
        limit = configuration.rates.map { LimitInfo($0) }
        onEnospc = configuration.holdsForRoom == true ? "hold" : nil
        if let settings = configuration.share {
            var parameters = ShareParameters(
                directory: settings.directory, tag: settings.tag, options: settings.options)
            parameters.maxFiles = settings.maximumFiles
            parameters.mountPoint = settings.mountPoint
            share = parameters
        }
        origin = configuration.origin
    }
}

extension DeviceInfo {
    init(_ status: DeviceStatus) {
        let isActive = status.workers.contains { $0.phase == .active || $0.phase == .freezing }
        let state =
            switch (isActive, status.problem) {
            case (true, _): status.isConnected ? "serving" : "waiting"
            case (false, nil): "starting"
            case (false, _): "failed"
            }
        self.init(
            state: state, disk: DeviceParameters(status.configuration), problem: status.problem,
            workers: status.workers.map {
                WorkerInfo(id: $0.id, pid: $0.process, phase: $0.phase.rawValue, version: $0.version)
            }, takeOvers: status.takeOvers, connections: status.connections, generation: status.generation,
            completed: status.completed, upgrade: status.upgrade, lastDeath: status.lastDeath, givenUp: status.givenUp)
        if !status.notices.isEmpty { notices = status.notices }
    }
}

extension ResizeResult {
    init(_ outcome: DeviceMachine.ResizeOutcome) {
        switch outcome {
        case .done(let bytes): self.init(bytes: bytes, isWaiting: false)
        case .waiting(let bytes): self.init(bytes: bytes, isWaiting: true)
        case .failed: self.init(bytes: 0, isWaiting: false)
        }
    }
}

extension EventInfo {
    init(_ event: SupervisorEvent) {
        self.init(
            sequence: event.sequence, time: event.time, device: event.device, worker: event.report.worker,
            kind: event.report.kind.rawValue, text: event.report.text)
    }
}

extension ProgressInfo {
    init(_ progress: UpgradeProgress) {
        let failure: String? = if case .failed(let why) = progress.outcome { why } else { nil }
        self.init(device: progress.device, failure: failure, milliseconds: progress.milliseconds)
    }
}

extension JSONRPC.Fault {
    init(_ error: SupervisorError) {
        if case .invalid(let what) = error {
            self.init(Self.invalidParameters, what)
        } else {
            self.init(Self.refused, "\(error)")
        }
    }
}
