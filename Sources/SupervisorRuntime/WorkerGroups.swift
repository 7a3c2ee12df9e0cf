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
            if unsafe mkdir(folder, 0o755) != 0, Errno.current != Errno(rawValue: EEXIST) { throw .current }
            let file = OwnedFD(
                owning: try retryingInterrupts { unsafe open("\(folder)/cgroup.procs", O_WRONLY | O_CLOEXEC) })
            let text = Array("\(process)".utf8)
            try retryingInterrupts { unsafe write(file.number, text, text.count) }
        } catch {
            throw SystemError(
                cannot: "move a worker into the control group", folder, error,
                advice: "--worker-cgroup names a group that batond may divide (Delegate=yes)")
        }
    }

    /// Removes a device's group, which is empty by now.
    func remove(device: String) { unsafe rmdir(folder(device)) }
}
