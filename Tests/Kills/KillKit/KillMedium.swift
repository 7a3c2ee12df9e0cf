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

    static let diskBytes = 8 << 20

    /// The most requests between two kills.
    var requestsBetweenKills: UInt64 { self == .throttled ? 30 : 400 }

    /// The sectors that are used; few where a late write must meet a newer one.
    var sectors: Range<UInt64> { self == .throttled ? 0..<512 : 0..<4096 }
}

/// A medium made for one trial.
struct KillStorage: ~Copyable {
    let options: [String]
    private let device: LoopDevice?
    private let throttle: WriteThrottle?

    init(_ medium: KillMedium, in directory: borrowing TemporaryDirectory) throws(SystemError) {
        let image = directory.file("disk.img")
        try TestFile.create(image, count: KillMedium.diskBytes)
        switch medium {
        case .direct, .buffered:
            device = nil
            throttle = nil
            options = ["--blk-file=\(image)", "--cache=\(medium.rawValue)"]
        case .loop, .throttled:
            let made = try LoopDevice(image, in: directory)
            throttle = medium == .throttled ? try WriteThrottle(made, bytes: 8 << 20, operations: 40) : nil
            options = ["--blk-file=\(made.path)"]
            device = made
        }
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
