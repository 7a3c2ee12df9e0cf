internal import ControlAPI
internal import Foundation
internal import Logging
internal import SupervisorRuntime

/// Carries out the control socket's requests.
struct ControlService: Sendable {
    let supervisor: Supervisor
    let saved: SavedDevices
    let configured: ConfiguredDevices
    let directory: String
    let log: Logger
    /// A service manager starts the supervisor again when it ends.
    let isStartedAgain: Bool
    /// Has the supervisor replaced by the program at a path; nil: by what lies at its own.
    let replace: @Sendable (String?) -> Void

    /// Who asks.
    struct Caller: Sendable {
        /// Why it may change nothing, as a sentence; nil when it may.
        var refusal: String?
        /// Sends a line, from any thread.
        var send: @Sendable ([UInt8]) -> Void
    }

    /// Carries out one line. The answer is sent when there is one.
    ///
    /// - Returns: what ends a subscription, if the line began one.
    func carryOut(_ line: Data, for caller: Caller) -> (@Sendable () -> Void)? {
        do throws(JSONRPC.Fault) {
            let head = try JSONRPC.head(of: line)
            do throws(JSONRPC.Fault) {
                guard let method = ControlMethod(rawValue: head.method) else {
                    throw JSONRPC.Fault(JSONRPC.Fault.methodNotFound, "there is no method '\(head.method)'")
                }
                if !method.isReadOnly, let refusal = caller.refusal {
                    throw JSONRPC.Fault(JSONRPC.Fault.notPermitted, refusal)
                }
                return try carryOut(method, line, id: head.id, caller)
            } catch {
                answer(.failure(error) as Result<Empty, JSONRPC.Fault>, head.id, caller)
            }
        } catch {
            answer(.failure(error) as Result<Empty, JSONRPC.Fault>, nil, caller)
        }
        return nil
    }

    private func carryOut(
        _ method: ControlMethod, _ line: Data, id: Int?, _ caller: Caller
    ) throws(JSONRPC.Fault) -> (@Sendable () -> Void)? {
        switch method {
        case .create:
            create(try JSONRPC.parameters(of: line, as: DeviceParameters.self), id, caller)
        case .delete:
            let name = try JSONRPC.parameters(of: line, as: NameParameters.self).name
            supervisor.delete(name, sparesMounts: true) { result in
                if case .success = result { saved.remove(name) }
                answer(result.map { Empty() }.mapError { JSONRPC.Fault($0) }, id, caller)
            }
        case .status:
            let asked = try JSONRPC.parameters(of: line, as: StatusParameters.self)
            supervisor.status(asked.name) { result in
                let devices = result.map { statuses in
                    statuses.map { status in
                        var info = DeviceInfo(status)
                        if asked.statistics == true { info.statistics = StatisticsInfo(of: status) }
                        return info
                    }
                }
                answer(devices.mapError { JSONRPC.Fault($0) }, id, caller)
            }
        case .kill:
            let name = try JSONRPC.parameters(of: line, as: NameParameters.self).name
            supervisor.kill(name) { result in
                answer(result.map { KillResult(pid: $0) }.mapError { JSONRPC.Fault($0) }, id, caller)
            }
        case .upgrade:
            upgrade(try JSONRPC.parameters(of: line, as: UpgradeParameters.self), id, caller)
        case .upgradeSupervisor:
            let path = try JSONRPC.parameters(of: line, as: SupervisorParameters.self).program
            if let path, !FileManager.default.isExecutableFile(atPath: path) {
                throw JSONRPC.Fault(JSONRPC.Fault.refused, "there is no program at \(path)")
            }
            if path != nil, isStartedAgain {
                throw JSONRPC.Fault(
                    JSONRPC.Fault.refused,
                    "systemd starts the supervisor: put the program where the unit has it, and leave --program out")
            }
            answer(.success(Empty()), id, caller)
            replace(path)
        case .events:
            answer(.success(Empty()), id, caller)
            let follower = supervisor.follow { notify("event", EventInfo($0), caller) }
            return { supervisor.unfollow(follower) }
        case .reload:
            let isDryRun = try JSONRPC.parameters(of: line, as: ReloadParameters.self).dryRun
            configured.reload(isDryRun: isDryRun) { succeed($0, id, caller) }
        case .configuration: succeed(configured.info, id, caller)
        case .start: configured.start { succeed($0, id, caller) }
        case .resize:
            let asked = try JSONRPC.parameters(of: line, as: ResizeParameters.self)
            supervisor.resize(asked.name, to: asked.bytes, shrinks: asked.shrink) { result in
                answer(result.map { ResizeResult($0) }.mapError { JSONRPC.Fault($0) }, id, caller)
            }
        case .stop: configured.stop { succeed($0, id, caller) }
        case .limit:
            let asked = try JSONRPC.parameters(of: line, as: LimitParameters.self)
            configured.limit(asked) { answer($0.mapError { JSONRPC.Fault($0) }, id, caller) }
        case .set:
            let asked = try JSONRPC.parameters(of: line, as: SetParameters.self)
            configured.set(asked) { answer($0.mapError { JSONRPC.Fault($0) }, id, caller) }
        case .resume:
            let name = try JSONRPC.parameters(of: line, as: NameParameters.self).name
            supervisor.retryHeld(name) { result in
                answer(result.map { RetryResult(requests: $0) }.mapError { JSONRPC.Fault($0) }, id, caller)
            }
        }
        return nil
    }

    private func succeed(_ body: some Encodable, _ id: Int?, _ caller: Caller) {
        answer(.success(body), id, caller)
    }

    private func create(_ asked: DeviceParameters, _ id: Int?, _ caller: Caller) {
        var disk = asked
        disk.origin = nil
        let configuration: DeviceConfiguration
        do throws(SupervisorError) {
            configuration = try DeviceConfiguration(disk, directory: directory)
        } catch {
            return answer(.failure(JSONRPC.Fault(error)) as Result<Empty, JSONRPC.Fault>, id, caller)
        }
        supervisor.create(configuration) { [disk] result in
            // What this host mounts is brought by whoever mounts it: it cannot be made anew without.
            if case .success = result, disk.share?.mountPoint == nil {
                do {
                    try saved.save(disk)
                } catch {
                    log.error("\(disk.name) will not survive a restart: it cannot be saved: \(error)")
                }
            }
            answer(result.map { DeviceInfo($0) }.mapError { JSONRPC.Fault($0) }, id, caller)
        }
    }

    private func upgrade(_ parameters: UpgradeParameters, _ id: Int?, _ caller: Caller) {
        supervisor.upgrade(
            parameters.devices, programPath: parameters.worker, canaries: max(0, parameters.canary),
            isDryRun: parameters.dryRun, progress: { notify("progress", ProgressInfo($0), caller) },
            reply: { result in
                let devices = result.map { UpgradeResult(devices: $0.map { ProgressInfo($0) }) }
                answer(devices.mapError { JSONRPC.Fault($0) }, id, caller)
            })
    }

    private func notify(_ method: String, _ body: some Encodable, _ caller: Caller) {
        if let line = try? JSONRPC.encode(method, body, id: nil) { caller.send(line) }
    }

    private func answer<Body: Encodable>(_ result: Result<Body, JSONRPC.Fault>, _ id: Int?, _ caller: Caller) {
        let line: [UInt8]?
        switch result {
        case .success(let body): line = try? JSONRPC.encode(result: body, id: id)
        case .failure(let fault): line = try? JSONRPC.encode(fault, id: id)
        }
        if let line { caller.send(line) }
    }
}
