internal import ControlAPI
internal import Glibc
internal import Platform

/// What of a configuration this host does not have. What it will have later is a warning: the device waits for it.
public enum HostCheck {
    /// - Returns: what an operator has to see to before the device is served.
    public static func problems(of device: ConfiguredDevice) -> [ConfigurationProblem] {
        let path = device.parameters.section
        return image(device, path) + directory(device, path) + socket(device, path) + accounts(device, path)
    }

    private static func directory(_ device: ConfiguredDevice, _ path: String) -> [ConfigurationProblem] {
        guard let directory = device.parameters.share?.directory else { return [] }
        func problem(
            _ severity: ConfigurationProblem.Severity, _ reason: String, _ suggestion: String?
        ) -> [ConfigurationProblem] {
            [ConfigurationProblem(severity, in: device.file, key: "\(path).directory", reason, suggestion: suggestion)]
        }
        var status = stat()
        guard unsafe stat(directory, &status) == 0 else {
            let error = Errno.current
            return error == .noEntry
                ? problem(.warning, "\(directory) does not exist", "the share waits for it; mkdir makes it")
                : problem(.warning, "\(directory) cannot be looked at: \(error)", nil)
        }
        guard status.st_mode & S_IFMT != S_IFDIR else { return [] }
        return problem(.error, "\(directory) is no directory", "give the path of a directory, or write [disk.NAME]")
    }

    private static func image(_ device: ConfiguredDevice, _ path: String) -> [ConfigurationProblem] {
        guard let file = device.parameters.file else { return [] }
        func problem(
            _ severity: ConfigurationProblem.Severity, _ reason: String, _ suggestion: String?
        ) -> [ConfigurationProblem] {
            [ConfigurationProblem(severity, in: device.file, key: "\(path).file", reason, suggestion: suggestion)]
        }
        var status = stat()
        guard unsafe stat(file, &status) == 0 else {
            let error = Errno.current
            return error == .noEntry
                ? problem(.warning, "\(file) does not exist", "the disk waits for it; truncate -s SIZE makes one")
                : problem(.warning, "\(file) cannot be looked at: \(error)", nil)
        }
        switch status.st_mode & S_IFMT {
        case S_IFBLK: return []
        case S_IFREG where status.st_size < 512:
            return problem(
                .warning, "\(file) has \(status.st_size) bytes, less than a sector", "truncate -s SIZE makes it larger")
        case S_IFREG: return []
        case S_IFDIR: return problem(.error, "\(file) is a directory", "give the path of an image or a block device")
        default:
            return problem(
                .error, "\(file) is neither a regular file nor a block device",
                "give the path of an image or a block device")
        }
    }

    private static func socket(_ device: ConfiguredDevice, _ path: String) -> [ConfigurationProblem] {
        guard let socket = device.parameters.socket else { return [] }
        let folder = socket.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        var status = stat()
        guard unsafe stat(folder.isEmpty ? "/" : folder, &status) == 0 else {
            let error = Errno.current
            return [
                ConfigurationProblem(
                    error == .noEntry ? .error : .warning, in: device.file, key: "\(path).socket",
                    error == .noEntry
                        ? "the folder \(folder) does not exist" : "\(folder) cannot be looked at: \(error)",
                    suggestion: error == .noEntry ? "make it, or let tmpfiles.d make it at every boot" : nil)
            ]
        }
        guard status.st_mode & S_IFMT != S_IFDIR else { return [] }
        return [ConfigurationProblem(in: device.file, key: "\(path).socket", "\(folder) is no folder")]
    }

    private static func accounts(_ device: ConfiguredDevice, _ path: String) -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        if let owner = device.parameters.socketOwner, userNumber(owner) == nil {
            problems.append(unknown("user", owner, "\(path).socket-owner", device.file))
        }
        if let group = device.parameters.socketGroup, groupNumber(group) == nil {
            problems.append(unknown("group", group, "\(path).socket-group", device.file))
        }
        return problems
    }

    private static func unknown(_ kind: String, _ name: String, _ key: String, _ file: String) -> ConfigurationProblem {
        ConfigurationProblem(
            in: file, key: key, "there is no \(kind) \"\(name)\"",
            suggestion: "getent \(kind == "user" ? "passwd" : "group") lists them")
    }
}

/// The number of a user, given by name or number; nil when there is none.
public func userNumber(_ name: String) -> UInt32? {
    UInt32(name) ?? (unsafe getpwnam(name).map { unsafe $0.pointee.pw_uid })
}

/// The number of a group, given by name or number; nil when there is none.
public func groupNumber(_ name: String) -> UInt32? {
    UInt32(name) ?? (unsafe getgrnam(name).map { unsafe $0.pointee.gr_gid })
}
