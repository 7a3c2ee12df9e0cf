internal import Glibc
internal import Platform

/// Control groups (cgroups(7), version 2) for workers, one for each device: outside of the supervisor's own, so that
/// whoever ends or limits that one does not take them along.
public struct WorkerGroups: Sendable {
    private let path: String

    /// - Parameter path: of a group that is this supervisor's to divide (Delegate= in systemd.resource-control(5)).
    public init(in path: String) { self.path = path }

    private func folder(_ device: String) -> String { "\(path)/device-\(device)" }

    /// Moves a process that was just started into its device's group.
    func take(_ process: Int32, device: String) throws(SystemError) {
        let folder = folder(device)
        do throws(Errno) {
            try make(folder)
            try write("\(process)", to: "\(folder)/cgroup.procs")
        } catch {
            throw SystemError(
                cannot: "move a worker into the control group", folder, error,
                advice: "--worker-cgroup names a group that batond may divide (Delegate=yes)")
        }
    }

    /// Removes a device's group, which is empty by now.
    func remove(device: String) { unsafe rmdir(folder(device)) }

    private func make(_ folder: String) throws(Errno) {
        if unsafe mkdir(folder, 0o755) != 0, Errno.current != Errno(rawValue: EEXIST) { throw .current }
    }

    /// One value in one call, as control groups want it.
    private func write(_ text: String, to file: String) throws(Errno) {
        let file = OwnedFD(owning: try retryingInterrupts { unsafe open(file, O_WRONLY | O_CLOEXEC) })
        let bytes = Array(text.utf8)
        try retryingInterrupts { unsafe Glibc.write(file.number, bytes, bytes.count) }
    }
}

// MARK: - Limits

extension WorkerGroups {
    /// A limit, and the file of the group that it goes to.
    private struct Limit {
        var key: String
        var controller: String
        var file: String
        /// nil: it is not asked for.
        var asked: String?
        /// What the file says when nothing is asked for.
        var standard: String
    }

    private static func limits(_ limits: ResourceLimits?) -> [Limit] {
        [
            Limit(
                key: "cpu-weight", controller: "cpu", file: "cpu.weight", asked: limits?.cpuWeight.map { "\($0)" },
                standard: "100"),
            Limit(
                key: "memory-max", controller: "memory", file: "memory.max",
                asked: limits?.memoryBytes.map { "\($0)" }, standard: "max"),
            Limit(
                key: "io-weight", controller: "io", file: "io.weight", asked: limits?.ioWeight.map { "\($0)" },
                standard: "100"),
        ]
    }

    /// Sets the limits of a device's group. What was set before and is not asked for any more is taken back.
    ///
    /// - Parameter groups: nil: workers run in the supervisor's own control group.
    /// - Returns: a sentence for each limit that has no effect.
    static func apply(_ asked: ResourceLimits?, device: String, in groups: WorkerGroups?) -> [String] {
        limits(asked).compactMap { limit in
            guard let groups else {
                return limit.asked.map { _ in
                    "\(limit.key) has no effect: batond was started without --worker-cgroup"
                }
            }
            return groups.apply(limit, device)
        }
    }

    private func apply(_ limit: Limit, _ device: String) -> String? {
        let file = "\(folder(device))/\(limit.file)"
        do throws(Errno) {
            try make(folder(device))
            if unsafe access(file, F_OK) != 0 {
                // Where nothing is asked for, nothing needs to be there.
                guard limit.asked != nil else { return nil }
                try enable(limit.controller)
            }
            try write(limit.asked ?? limit.standard, to: file)
            return nil
        } catch {
            guard limit.asked != nil else { return nil }
            let offered = words("cgroup.controllers")
            return offered.contains(limit.controller)
                ? "\(limit.key) has no effect: \(file) cannot be written: \(error)"
                : "\(limit.key) has no effect: the controller '\(limit.controller)' is not there in \(path) "
                    + "(cgroup.controllers: \(offered.isEmpty ? "none" : offered.joined(separator: " ")))"
        }
    }

    /// Hands a controller on to the groups of the devices. A group that does so may have no processes of its own:
    /// those that there are (systemd's) get one beside the devices.
    private func enable(_ controller: String) throws(Errno) {
        guard !words("cgroup.subtree_control").contains(controller) else { return }
        let processes = words("cgroup.procs")
        if !processes.isEmpty {
            try make("\(path)/unit")
            // One that has ended meanwhile needs none.
            for process in processes { try? write(process, to: "\(path)/unit/cgroup.procs") }
        }
        try write("+\(controller)", to: "\(path)/cgroup.subtree_control")
    }

    private func words(_ file: String) -> [String] {
        (readSmallFile("\(path)/\(file)") ?? "").split { $0 == " " || $0 == "\n" }.map(String.init)
    }
}
