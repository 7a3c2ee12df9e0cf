internal import CLinux
internal import Glibc
public import Logging
public import Platform

/// A worker on its own that mounts the directory on the host, instead of sharing it with a guest: the same server by
/// its second transport. It ends when it is unmounted, or by SIGTERM.
public struct MountWorker: ~Copyable {
    private let device: MountDevice
    private let signals: OwnedFD
    private let place: String
    private let log: Logger

    /// Mounts a share.
    ///
    /// - Parameters:
    ///   - configuration: of a share.
    ///   - place: a directory.
    /// - Throws: what failed, and what to do.
    public init(_ configuration: WorkerConfiguration, at place: String, log: Logger) throws(SystemError) {
        guard case .directory(let path, _) = configuration.storage else {
            throw SystemError(cannot: "mount", "a disk", nil, advice: "Say what to mount: --shared-dir=PATH")
        }
        ignoreBrokenPipes()
        let signals = try taking("signals") { () throws(Errno) in try makeSignalDescriptor(for: [SIGTERM, SIGINT]) }
        let number = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard number >= 0 else { throw SystemError(cannot: "share", path, .current) }
        let processFiles = clinux_open_process_files(1)
        let directory = GivenDirectory(
            root: OwnedFD(owning: number), processFiles: processFiles >= 0 ? OwnedFD(owning: processFiles) : nil,
            isConfined: false)
        let fuse = unsafe open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard fuse >= 0 else {
            throw SystemError(cannot: "open", "/dev/fuse", .current, advice: "The module fuse may not be loaded")
        }
        let device = OwnedFD(owning: fuse)
        var asked = configuration
        asked.queueCount = asked.threadCount + 1
        let statistics = try taking("memory to count in") { () throws(Errno) in try asked.makeStatistics() }
        let served = try asked.makeDevice(
            log: log, signals: signals.number, statistics: statistics, directory: directory)
        guard let mount = served.mount else {
            throw SystemError(cannot: "mount at", place, nil, advice: "The configuration is of a share for guests")
        }
        let requests = try taking("memory for requests") { () throws(Errno) in
            try (0..<asked.threadCount).map { _ throws(Errno) in
                SharedMapping(try Mapping(anonymous: MountDevice.requestBytes))
            }
        }
        // First: the kernel tells nobody of requests who has asked before it is mounted.
        guard unsafe clinux_mount_fuse(device.number, place, configuration.isReadOnly ? 1 : 0) == 0 else {
            throw SystemError(cannot: "mount at", place, .current, advice: "It takes root")
        }
        do throws(SystemError) {
            try mount.serve(device, requests)
        } catch {
            _ = unsafe clinux_unmount_fuse(place)
            throw error
        }
        self.device = mount
        self.signals = signals
        self.place = place
        self.log = log
        log.info("mounted \(path) at \(place)")
    }

    /// Serves until it is unmounted, or asked to end; then it is unmounted.
    public consuming func run() {
        _ = waitForAny([signals.number, device.goneNumber], milliseconds: nil)
        _ = unsafe clinux_unmount_fuse(place)
        device.leave()
        log.info("ended")
    }
}
