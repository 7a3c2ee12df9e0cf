internal import FrontendKit
internal import Platform
internal import TestSupport

/// What the disk that is served lies on.
public enum KillMedium: String, CaseIterable, Sendable {
    /// A file, past the page cache.
    case direct
    /// A file, through the page cache.
    case buffered
    /// A loop device.
    case loop
    /// A loop device that takes 40 writes a second from every other worker: the successors of those could overtake
    /// what they have left.
    case throttled
    /// A file on a file system on such a device, past the page cache: the device's claim (O_EXCL) is the file system's,
    /// so that the generation lock alone keeps a successor waiting.
    case throttledFile = "throttled-file"

    private var isThrottled: Bool { self == .throttled || self == .throttledFile }

    static let diskBytes = 8 << 20

    /// Where writes are to land long after their worker's death, the load has nothing that keeps a killed process from
    /// ending before they have: no request that a thread of the kernel carries out for it and waits (flush, discard,
    /// write zeroes), and on a file system no write of a part of a block, which is carried out alone.
    func adapt(_ options: inout VerifiedLoad.Options) {
        guard self == .throttledFile else { return }
        options.weights = LoadOperation.allCases.map { $0 == .read ? 30 : $0 == .write ? 70 : 0 }
        options.blockSectors = 8
        options.maximumBlocks = 4
    }

    /// The most requests between two kills.
    var requestsBetweenKills: UInt64 { isThrottled ? 30 : 400 }

    /// The sectors that are used; few where a late write must meet a newer one.
    var sectors: Range<UInt64> { isThrottled ? 0..<512 : 0..<4096 }
}

/// A medium made for one trial.
struct KillStorage: ~Copyable {
    let options: [String]
    // In the order in which they are taken apart.
    private let mounted: MountedFileSystem?
    private let device: LoopDevice?
    private let throttle: WriteThrottle?

    init(_ medium: KillMedium, in directory: borrowing TemporaryDirectory) throws(SystemError) {
        let image = directory.file("disk.img")
        switch medium {
        case .direct, .buffered:
            try TestFile.create(image, count: KillMedium.diskBytes)
            (mounted, device, throttle) = (nil, nil, nil)
            options = ["--blk-file=\(image)", "--cache=\(medium.rawValue)"]
        case .loop, .throttled:
            try TestFile.create(image, count: KillMedium.diskBytes)
            let made = try LoopDevice(image, in: directory)
            throttle = medium == .throttled ? try Self.slow(made) : nil
            options = ["--blk-file=\(made.path)"]
            (mounted, device) = (nil, made)
        case .throttledFile:
            try TestFile.create(image, count: 4 * KillMedium.diskBytes)
            let made = try LoopDevice(image, in: directory)
            let place = try MountedFileSystem(made.path, at: directory.file("mnt"))
            let disk = "\(place.path)/disk.img"
            // Written once, so that no later write waits for the file system.
            try TestFile.create(disk, count: KillMedium.diskBytes)
            try TestFile.write([UInt8](repeating: 0, count: KillMedium.diskBytes), to: disk, at: 0)
            _ = try run("sync", ["--file-system", disk], in: directory)
            throttle = try Self.slow(made)
            options = ["--blk-file=\(disk)", "--cache=direct"]
            (mounted, device) = (place, made)
        }
    }

    private static func slow(_ device: LoopDevice) throws(SystemError) -> WriteThrottle {
        try WriteThrottle(device, bytes: 8 << 20, operations: 40)
    }

    /// Starts a worker on it and waits until it listens.
    ///
    /// - Parameter number: of the worker; those with an odd one are throttled, where there is a throttle.
    func start(
        _ more: [String], number: Int, in directory: borrowing TemporaryDirectory
    ) throws(SystemError) -> WorkerProcess {
        let worker = try WorkerProcess(options + more, in: directory)
        if number % 2 == 1 { try throttle?.hold(worker.program.pid) }
        return worker
    }
}
