internal import CLinux
internal import FileTarget
internal import Glibc
internal import Logging
internal import Platform

/// A socket that listens before its worker leaves the host's files: later it could not be made.
final class EarlyListener {
    let listener: UnixListener

    init(at path: String, access: SocketAccess) throws(SystemError) {
        do throws(Errno) {
            listener = try UnixListener(at: path, access: access)
        } catch {
            throw SystemError(cannot: "listen at", path, error)
        }
    }
}

/// How a worker on its own comes to what it shares: nil, nil for a disk.
struct Entrance {
    private(set) var listener: EarlyListener?
    private(set) var directory: GivenDirectory?

    init(_ configuration: WorkerConfiguration, _ log: Logger) throws(SystemError) {
        guard case .directory(let path, let share) = configuration.storage else { return }
        if case .path(let socket, let access) = configuration.meeting {
            listener = try EarlyListener(at: socket, access: access)
        }
        directory = try share.enter(path, readOnly: configuration.isReadOnly, log)
    }
}

extension ShareConfiguration {
    /// Opens the directory for a worker on its own, and makes it the worker's root, as far as it is asked to. Called
    /// before other threads are started.
    ///
    /// - Throws: what failed, and what to do.
    func enter(_ path: String, readOnly: Bool, _ log: Logger) throws(SystemError) -> GivenDirectory {
        let number = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard number >= 0 else { throw SystemError(cannot: "share", path, .current) }
        let directory = OwnedFD(owning: number)
        switch isolation {
        case .none: break
        case .chroot:
            let processFiles = clinux_open_process_files(1)
            guard fchdir(number) == 0, unsafe chroot(".") == 0, unsafe chdir("/") == 0 else {
                throw SystemError(
                    cannot: "make a root of", path, .current,
                    advice: "It needs CAP_SYS_CHROOT; --sandbox=none does without")
            }
            return try Self.root(processFiles)
        case .auto, .namespace:
            do throws(Errno) {
                return try isolate(directory, readOnly: readOnly)
            } catch {
                let refusal = SystemError(
                    cannot: "leave", "the host's namespaces", error,
                    advice: "They need root's rights; --sandbox=none does without")
                guard isolation == .auto else { throw refusal }
                log.warning("\(refusal); this worker could reach all that its user may")
            }
        }
        let processFiles = clinux_open_process_files(1)
        return GivenDirectory(
            root: directory, processFiles: processFiles >= 0 ? OwnedFD(owning: processFiles) : nil,
            isConfined: false)
    }

    /// Namespaces of its own, the directory as root, and of all capabilities those of files.
    ///
    /// - Throws: when that cannot be had. Namespaces that it has got by then are no harm.
    private func isolate(_ directory: borrowing OwnedFD, readOnly: Bool) throws(Errno) -> GivenDirectory {
        let tree = try cloneMounts(of: directory, readOnly: readOnly)
        guard clinux_leave_namespaces() & Int32(CLINUX_NEW_MOUNTS) != 0 else { throw .notPermitted }
        let processFiles = clinux_open_process_files(0)
        var result = clinux_share_root(tree.number)
        if result == 0 { result = clinux_keep_file_capabilities(1) }
        guard result == 0 else { throw Errno(rawValue: result) }
        do throws(SystemError) {
            return try Self.root(processFiles)
        } catch {
            throw error.errno ?? .inputOutput
        }
    }

    private static func root(_ processFiles: Int32) throws(SystemError) -> GivenDirectory {
        let files = processFiles >= 0 ? OwnedFD(owning: processFiles) : nil
        let number = unsafe open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard number >= 0 else { throw SystemError(cannot: "share", "the directory", .current) }
        return GivenDirectory(root: OwnedFD(owning: number), processFiles: files, isConfined: true)
    }
}
