internal import Configuration
internal import ControlAPI
internal import Dispatch
internal import Foundation
internal import Logging
internal import SupervisorRuntime
internal import Synchronization

/// Makes the devices those that the configuration asks for: at the start, and whenever it is applied again. One thing
/// after the other, on a thread of its own, which waits for the custody thread and never the other way round.
final class ConfiguredDevices: Sendable {
    let supervisor: Supervisor
    private let saved: SavedDevices
    private let files: ConfigurationFiles
    /// Where sockets lie unless told otherwise.
    let directory: String
    private let log: Logger
    let queue = DispatchQueue(label: "configuration")
    private let last = Mutex<ReloadResult?>(nil)

    init(
        supervisor: Supervisor, saved: SavedDevices, files: ConfigurationFiles, directory: String, log: Logger
    ) {
        self.supervisor = supervisor
        self.saved = saved
        self.files = files
        self.directory = directory
        self.log = log
    }

    /// How it was applied last.
    var info: ConfigurationInfo { ConfigurationInfo(last: last.withLock { $0 }) }

    /// Makes every device that there is to be and that is not there. A configuration that is wrong leaves those that it
    /// asked for when it was right.
    func restore() {
        let result = queue.sync { makeMissing() }
        for failure in result.failures { log.error("\(failure)") }
    }

    func start(_ reply: @escaping @Sendable (DevicesResult) -> Void) {
        queue.async { reply(self.makeMissing()) }
    }

    /// Ends every device when its requests are finished. They are made again by `start`, or by the next supervisor.
    func stop(_ reply: @escaping @Sendable (DevicesResult) -> Void) {
        queue.async { reply(self.endAll()) }
    }

    /// Applies the configuration.
    func reload(isDryRun: Bool, reply: @escaping @Sendable (ReloadResult) -> Void) {
        queue.async {
            let result = self.apply(isDryRun: isDryRun)
            if !isDryRun {
                self.last.withLock { $0 = result }
                self.tell(result)
            }
            reply(result)
        }
    }

    private func tell(_ result: ReloadResult) {
        for error in result.errors { log.error("the configuration is not applied: \(error)") }
        for failure in result.failures { log.error("\(failure)") }
        for warning in result.warnings { log.warning("\(warning)") }
        for change in result.held {
            log.warning(
                "\(change.explanation ?? "")", metadata: ["device": "\(change.device)", "key": "\(change.key)"])
        }
        for change in result.changed {
            log.notice(
                "\(change.key) was \(change.running) and is \(change.asked)", metadata: ["device": "\(change.device)"])
        }
        let summary = result.summary
        log.notice("\(summary)")
        ServiceManager.tell("STATUS=\(summary)")
    }
}

// MARK: - What is asked for

extension ConfiguredDevices {
    /// Why a configuration is not applied.
    private struct Refusal: Error {
        var files: [String]
        var problems: [ConfigurationProblem]
    }

    /// What the files ask for, spelt as the supervisor spells it.
    private struct Asked {
        var devices: [ConfiguredDevice]
        var files: [String]
        var warnings: [ConfigurationProblem]
    }

    private func read() throws(Refusal) -> Asked {
        let texts: [ConfigurationText]
        do throws(ConfigurationProblem) {
            texts = try files.read()
        } catch {
            throw Refusal(files: [error.file], problems: [error])
        }
        let paths = texts.map(\.path)
        let configuration = ConfigurationContent(texts)
        guard !configuration.hasErrors else { throw Refusal(files: paths, problems: configuration.problems) }
        var problems: [ConfigurationProblem] = []
        let devices = configuration.devices.compactMap { asked -> ConfiguredDevice? in
            do throws(SupervisorError) {
                var parameters = asked.parameters
                parameters.origin = asked.file
                let device = try DeviceConfiguration(parameters, directory: directory)
                try device.validate()
                return ConfiguredDevice(parameters: DeviceParameters(device), file: asked.file)
            } catch {
                let key = "\(asked.parameters.kind.rawValue).\(asked.parameters.name)"
                problems.append(ConfigurationProblem(in: asked.file, key: key, "\(error)"))
                return nil
            }
        }
        guard problems.isEmpty else { throw Refusal(files: paths, problems: problems) }
        return Asked(devices: devices, files: paths, warnings: configuration.problems)
    }

    func running() -> [DeviceParameters] {
        let statuses = Answer.wait { self.supervisor.status(nil, reply: $0) }
        return ((try? statuses.get()) ?? []).map { DeviceParameters($0.configuration) }
    }
}

// MARK: - What is done

extension ConfiguredDevices {
    private func makeMissing() -> DevicesResult {
        let present = Set(running().map(\.name))
        let all = saved.load(log)
        var disks = all.filter { $0.origin == nil }
        let before = all.filter { $0.origin != nil }
        do throws(Refusal) {
            let wanted = try read().devices.map(\.parameters)
            let names = Set(disks.map(\.name))
            if let name = wanted.map(\.name).first(where: names.contains) {
                throw Refusal(files: [], problems: [ConfigurationProblem(in: name, "two devices have this name")])
            }
            disks += wanted
            let kept = present.union(wanted.map(\.name))
            for disk in before where !kept.contains(disk.name) { saved.remove(disk.name) }
        } catch {
            // `apply` says what is wrong.
            disks += before
        }
        var result = DevicesResult(devices: [], failures: failures(of: disks))
        for disk in disks where !present.contains(disk.name) {
            if let failure = make(disk) { result.failures.append(failure) } else { result.devices.append(disk.name) }
        }
        return result
    }

    /// What of devices that are there, or will be, nobody can serve here, as sentences.
    private func failures(of devices: [DeviceParameters]) -> [String] {
        guard let reason = supervisor.whyNoShares else { return [] }
        return devices.filter { $0.share != nil }.map { "cannot serve \($0.name). \(reason)" }
    }

    private func endAll() -> DevicesResult {
        var result = DevicesResult(devices: [], failures: [])
        let names = running().map(\.name)
        // All at once: each may have to wait for its requests.
        let endings = names.map { name in
            (name, Answer<Result<Void, SupervisorError>> { self.supervisor.delete(name, reply: $0) })
        }
        for (name, ending) in endings {
            switch ending.wait() {
            case .success: result.devices.append(name)
            case .failure(let error): result.failures.append("\(name): \(error)")
            }
        }
        return result
    }

    /// - Returns: why there is no such device now, as a sentence; nil when there is one.
    private func make(_ disk: DeviceParameters) -> String? {
        do throws(SupervisorError) {
            let device = try DeviceConfiguration(disk, directory: directory)
            _ = try Answer.wait { self.supervisor.create(device, isRestored: true, reply: $0) }.get()
            save(disk)
            return nil
        } catch {
            return "cannot make \(disk.name): \(error)"
        }
    }

    func save(_ disk: DeviceParameters) {
        do {
            try saved.save(disk)
        } catch {
            log.error("\(disk.name) will not survive a restart: it cannot be saved: \(error)")
        }
    }

    private func apply(isDryRun: Bool) -> ReloadResult {
        var result = ReloadResult(time: UInt64(Date().timeIntervalSince1970 * 1000), dryRun: isDryRun)
        let plan: ReloadPlan
        let asked: Asked
        do throws(Refusal) {
            asked = try read()
            result.files = asked.files
            let lacks = asked.devices.flatMap { HostCheck.problems(of: $0) }
            result.warnings = (asked.warnings + lacks).map(\.description)
            plan = ReloadPlan(running: running(), wanted: asked.devices)
            guard plan.conflicts.isEmpty else { throw Refusal(files: asked.files, problems: plan.conflicts) }
        } catch {
            result.files = error.files
            result.errors = error.problems.map(\.description)
            return result
        }
        result.unchanged = plan.unchanged
        result.failures = failures(of: asked.devices.map(\.parameters))
        result.held = plan.held.map { KeyChangeInfo($0, $0.explanation) }
        // In this order: what is removed may have the socket or the image of what is added.
        for name in plan.removed { remove(name, &result) }
        for change in plan.changed { carryOut(change, &result) }
        for device in plan.added { add(device.parameters, &result) }
        return result
    }

    private func remove(_ name: String, _ result: inout ReloadResult) {
        if !result.dryRun {
            let ended = Answer.wait { self.supervisor.delete(name, reply: $0) }
            if case .failure(let error) = ended {
                result.failures.append("cannot remove \(name): \(error)")
                return
            }
            saved.remove(name)
        }
        result.removed.append(name)
    }

    private func carryOut(_ change: ReloadPlan.Change, _ result: inout ReloadResult) {
        if !result.dryRun {
            do throws(SupervisorError) {
                let device = try DeviceConfiguration(change.parameters, directory: directory)
                try Answer.wait { self.supervisor.reconfigure(device, reply: $0) }.get()
            } catch {
                result.failures.append("cannot change \(change.parameters.name): \(error)")
                return
            }
            save(change.parameters)
        }
        result.changed += change.keys.map { KeyChangeInfo($0, nil) }
    }

    private func add(_ disk: DeviceParameters, _ result: inout ReloadResult) {
        if !result.dryRun, let failure = make(disk) {
            result.failures.append(failure)
        } else {
            result.added.append(disk.name)
        }
    }
}

extension KeyChangeInfo {
    fileprivate init(_ change: ReloadPlan.KeyChange, _ explanation: String?) {
        self.init(
            device: change.device, key: change.key, running: change.running, asked: change.asked,
            explanation: explanation)
    }
}

/// An answer of the custody thread, for a thread that may wait.
final class Answer<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    private let isThere = DispatchSemaphore(value: 0)

    /// Asks.
    init(_ ask: (@escaping @Sendable (Value) -> Void) -> Void) {
        ask { answer in
            self.value.withLock { $0 = answer }
            self.isThere.signal()
        }
    }

    func wait() -> Value {
        while true {
            if let value = value.withLock({ $0 }) { return value }
            isThere.wait()
        }
    }

    static func wait(_ ask: (@escaping @Sendable (Value) -> Void) -> Void) -> Value { Answer(ask).wait() }
}
