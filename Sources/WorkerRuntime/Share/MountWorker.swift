internal import CLinux
internal import FileTarget
internal import Glibc
public import Logging
public import Platform
internal import Uring

/// A worker on its own that mounts the directory on the host, instead of sharing it with a guest: the same server by
/// its second transport. It ends when it is unmounted, or by SIGTERM.
public struct MountWorker: ~Copyable {
    private var loop: MountLoop
    private let place: String
    private let log: Logger

    /// Mounts a share.
    ///
    /// - Parameters:
    ///   - configuration: of a share.
    ///   - place: a directory.
    /// - Throws: what failed, and what to do.
    public init(_ configuration: WorkerConfiguration, at place: String, log: Logger) throws(SystemError) {
        guard case .directory(let path, let share) = configuration.storage else {
            throw SystemError(cannot: "mount", "a disk", nil, advice: "Say what to mount: --shared-dir=PATH")
        }
        ignoreBrokenPipes()
        let signals = try taking("signals") { () throws(Errno) in try makeSignalDescriptor(for: [SIGTERM, SIGINT]) }
        let number = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard number >= 0 else { throw SystemError(cannot: "share", path, .current) }
        let session = try configuration.session(share, root: OwnedFD(owning: number))
        session.takeUp()
        let device = unsafe open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard device >= 0 else {
            throw SystemError(cannot: "open", "/dev/fuse", .current, advice: "The module fuse may not be loaded")
        }
        let engine = try Ring(entries: 256, completions: 512)
        let loop = try Self.loop(session, engine, OwnedFD(owning: device), signals: signals.release())
        guard unsafe clinux_mount_fuse(device, place, configuration.isReadOnly ? 1 : 0) == 0 else {
            throw SystemError(cannot: "mount at", place, .current, advice: "It takes root")
        }
        try taking("/dev/fuse") { () throws(Errno) in try loop.watch() }
        self.loop = loop
        self.place = place
        self.log = log
        log.info("mounted \(path) at \(place)")
    }

    private static func loop(
        _ session: ShareSession, _ engine: consuming Ring, _ device: consuming OwnedFD, signals: Int32
    ) throws(SystemError) -> MountLoop {
        do throws(Errno) {
            return try MountLoop(session, engine: engine, device: device, signals: signals)
        } catch {
            throw SystemError(cannot: "set up", "a loop", error)
        }
    }

    /// Serves until it is unmounted, or asked to end; then it is unmounted.
    public consuming func run() {
        loop.run()
        _ = unsafe clinux_unmount_fuse(place)
        log.info("ended")
    }
}

extension WorkerConfiguration {
    /// The tables of a mount, in memory that goes with this worker.
    fileprivate func session(
        _ share: ShareConfiguration, root: consuming OwnedFD
    ) throws(SystemError) -> ShareSession {
        var description = share.description
        description.isReadOnly = isReadOnly
        let processFiles = clinux_open_process_files(1)
        let files = processFiles >= 0 ? OwnedFD(owning: processFiles) : nil
        return try ShareSession(
            description, memory: try shareMemory(share, nil), root: root, processFiles: files)
    }
}
