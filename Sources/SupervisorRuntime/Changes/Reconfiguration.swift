internal import Custody
internal import Glibc
internal import Platform
internal import Telemetry

// Changes of a device that runs. At once: who may connect to its socket, what its workers may have of the host, its
// rate limits, and what becomes of requests that find no room. By a take-over, as in an upgrade, with the same
// program and other options: how they run.
//
// What a SIGKILL of the supervisor leaves behind, after:
//
// - the change of the socket, the control group or the policy, the state not written: the device as it was asked for,
//   with the state before. The successor applies the configuration again: the same changes;
// - the state written, the candidate not started: the options before in `fallback`, and the step of the upgrade. The
//   successor goes on with it;
// - the candidate's failure, the state not written: it hears of the death, and takes the options before.

extension DeviceConfiguration {
    /// Whether a device that is this one can become the next one while it runs.
    func canBecome(_ next: DeviceConfiguration) -> Bool {
        var same = next
        (same.pinsMemory, same.pollMicroseconds, same.cpus) = (pinsMemory, pollMicroseconds, cpus)
        (same.socketMode, same.socketOwner, same.socketGroup) = (socketMode, socketOwner, socketGroup)
        (same.limits, same.origin) = (limits, origin)
        (same.rates, same.holdsForRoom) = (rates, holdsForRoom)
        return same == self
    }
}

extension DeviceCustody {
    /// Becomes another device, as far as that is possible.
    ///
    /// - Returns: whether it is done; if not, `upgradeEnded` tells how it went.
    /// - Throws: a sentence, when nothing was changed.
    func reconfigure(_ next: DeviceConfiguration) throws(SupervisorError) -> Bool {
        try next.validate()
        guard configuration.canBecome(next) else {
            throw .failed("the device '\(configuration.name)' cannot be changed in this way while it exists")
        }
        guard machine.upgrade == nil, fallback == nil else { throw .failed("an upgrade is under way") }
        if next.socketAccess != configuration.socketAccess { try setAccess(next) }
        let before = configuration
        configuration = next
        if next.limits != before.limits { applyLimits() }
        statistics.setPolicy(configuration.policy)
        // Nobody runs with the options before: the next worker takes the new ones.
        guard next.workerOptions != before.workerOptions, !machine.workers.isEmpty else {
            saveState()
            return true
        }
        // The socket and the limits stay, whatever becomes of the workers.
        var kept = next
        (kept.pinsMemory, kept.pollMicroseconds, kept.cpus) = (before.pinsMemory, before.pollMicroseconds, before.cpus)
        fallback = kept
        handle(.upgrade(DeviceMachine.Upgrade.Order(program: machine.program)))
        return false
    }

    /// A take-over has ended that may have been for other options.
    func reconfigured(_ outcome: DeviceMachine.Upgrade.Outcome) {
        // Another one was refused while this goes on.
        guard machine.upgrade == nil, let before = fallback else { return }
        fallback = nil
        if case .failed = outcome { configuration = before }
    }

    private func setAccess(_ next: DeviceConfiguration) throws(SupervisorError) {
        var access = next.socketAccess
        // What is asked for no more goes back to what a new socket would have.
        access.mode = access.mode ?? 0o777 & ~processUmask()
        access.owner = access.owner ?? geteuid()
        access.group = access.group ?? getegid()
        do throws(Errno) {
            try access.apply(toSocket: configuration.socketPath)
        } catch {
            throw .failed("\(SystemError(cannot: "change who may connect to", configuration.socketPath, error))")
        }
    }

    /// Sets the limits of the workers' control group, and tells what has no effect, once.
    func applyLimits() {
        let found = WorkerGroups.apply(configuration.limits, device: configuration.name, in: site.workerGroups)
        for text in found where !notices.contains(text) { note(.note, text) }
        notices = found
    }
}

/// As the kernel tells it: asking the C library would change it for a moment.
private func processUmask() -> UInt32 {
    let lines = (readSmallFile("/proc/self/status") ?? "").split(separator: "\n")
    guard let line = lines.first(where: { $0.hasPrefix("Umask:") }) else { return 0o022 }
    return UInt32(line.dropFirst("Umask:".count).drop { $0 == "\t" || $0 == " " }, radix: 8) ?? 0o022
}

extension CustodyLoop {
    func reconfigure(
        _ next: DeviceConfiguration, reply: @escaping @Sendable (Result<Void, SupervisorError>) -> Void
    ) {
        do throws(SupervisorError) {
            guard let device = devices[next.name] else { throw .noSuchDevice(next.name) }
            guard !isUpgrading, reconfigurations[next.name] == nil else { throw .failed("an upgrade is under way") }
            // Before it starts: it may fail at once.
            reconfigurations[next.name] = reply
            if try device.reconfigure(next) { endReconfiguration(next.name, .success(())) }
        } catch {
            reconfigurations[next.name] = nil
            reply(.failure(error))
        }
    }

    func endReconfiguration(_ name: String, _ result: Result<Void, SupervisorError>) {
        reconfigurations.removeValue(forKey: name)?(result)
    }
}

extension Supervisor {
    /// Changes a device while it runs: who may connect, limits, and by a take-over how its workers run.
    ///
    /// - Parameter next: what it is to be; differs in nothing else.
    public func reconfigure(
        _ next: DeviceConfiguration, reply: @escaping @Sendable (Result<Void, SupervisorError>) -> Void
    ) {
        mailbox.post { $0.reconfigure(next, reply: reply) }
    }
}
