internal import ControlAPI
internal import SupervisorRuntime

// The control socket's types and the supervisor's are apart, so that either may change without the other.

extension DeviceConfiguration {
    /// - Parameter directory: where the socket lies unless it is told.
    init(_ disk: DiskParameters, directory: String) {
        self.init(name: disk.name, socketPath: disk.socket ?? "\(directory)/\(disk.name).sock", imagePath: disk.file)
        isReadOnly = disk.readOnly
        isBuffered = disk.cache == "buffered"
        queueCount = disk.queues
        queueSize = disk.queueSize
        threadCount = disk.threads
        serial = disk.serial
        blockSize = disk.blockSize
    }
}

extension DeviceInfo {
    init(_ status: DeviceStatus) {
        let configuration = status.configuration
        let disk = DiskParameters(
            name: configuration.name, file: configuration.imagePath, socket: configuration.socketPath,
            queues: configuration.queueCount, queueSize: configuration.queueSize, threads: configuration.threadCount,
            readOnly: configuration.isReadOnly, cache: configuration.isBuffered ? "buffered" : "direct",
            serial: configuration.serial, blockSize: configuration.blockSize)
        let isActive = status.workers.contains { $0.phase == .active || $0.phase == .freezing }
        let state =
            switch (isActive, status.problem) {
            case (true, _): status.isConnected ? "serving" : "waiting"
            case (false, nil): "starting"
            case (false, _): "failed"
            }
        self.init(
            state: state, disk: disk, problem: status.problem,
            workers: status.workers.map {
                WorkerInfo(id: $0.id, pid: $0.process, phase: $0.phase.rawValue, version: $0.version)
            }, takeOvers: status.takeOvers, connections: status.connections, generation: status.generation,
            completed: status.completed, upgrade: status.upgrade, lastDeath: status.lastDeath, givenUp: status.givenUp)
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
