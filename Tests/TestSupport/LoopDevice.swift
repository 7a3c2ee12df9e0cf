internal import Glibc
public import Platform

/// A loop device on a file, gone with its owner.
public final class LoopDevice: Sendable {
    public let path: String
    /// "major:minor".
    public let number: String

    /// - Parameters:
    ///   - sectorSize: its logical block, in bytes.
    ///   - bypassingCache: its transfers are its file's own, and none waits for another.
    /// - Throws: what losetup says.
    public init(
        _ image: String, sectorSize: Int = 512, bypassingCache: Bool = false, in directory: borrowing TemporaryDirectory
    ) throws(SystemError) {
        let options = ["--find", "--show", "--sector-size=\(sectorSize)"]
        let result = try run(
            "losetup", options + (bypassingCache ? ["--direct-io=on"] : []) + [image], in: try TemporaryDirectory())
        guard result.code == 0, let path = result.output.split(separator: "\n").first else {
            throw SystemError(cannot: "make", "a loop device", nil, advice: result.output)
        }
        self.path = String(path)
        let place = "/sys/block/\(path.dropFirst("/dev/".count))"
        number = readSmallFile("\(place)/dev") ?? ""
        // losetup is content with less than it was asked for.
        if bypassingCache, readSmallFile("\(place)/loop/dio")?.hasPrefix("1") != true {
            throw SystemError(cannot: "bypass the cache of", image, nil, advice: "Its file system does not let a loop")
        }
    }

    /// Bytes that it has written since it was made: those that have landed.
    public var bytesWritten: Int {
        let fields = readSmallFile("/sys/dev/block/\(number)/stat")?.split(separator: " ") ?? []
        return fields.count > 6 ? (Int(fields[6]) ?? 0) * 512 : 0
    }

    deinit {
        guard let own = try? TemporaryDirectory() else { return }
        _ = try? run("losetup", ["--detach", path], in: own)
    }
}

/// Slows down what the processes in it write to one device: a control group of the blkio controller (version 1).
public final class WriteThrottle: Sendable {
    private static let root = "/sys/fs/cgroup/blkio"
    private let path: String

    /// Whether this machine has the controller and lets us use it.
    public static var isAvailable: Bool { unsafe access("\(root)/blkio.throttle.write_bps_device", W_OK) == 0 }

    /// - Parameters:
    ///   - bytes: a second.
    ///   - operations: a second; nil for as many as will.
    /// - Throws: when the controller is not there or this process is not root.
    public init(_ device: LoopDevice, bytes: Int, operations: Int? = nil) throws(SystemError) {
        path = "\(Self.root)/baton-\(getpid())-\(device.path.split(separator: "/").last ?? "")"
        guard unsafe mkdir(path, 0o700) == 0 || Errno.current == Errno(rawValue: EEXIST) else {
            throw SystemError(
                cannot: "make", path, .current, advice: "This needs root and the blkio controller of cgroup version 1")
        }
        try Self.write("\(device.number) \(bytes)", to: "\(path)/blkio.throttle.write_bps_device")
        if let operations {
            try Self.write("\(device.number) \(operations)", to: "\(path)/blkio.throttle.write_iops_device")
        }
    }

    /// Sets another limit, for what waits already, too.
    ///
    /// - Parameter bytes: a second.
    public func change(_ device: LoopDevice, bytes: Int) throws(SystemError) {
        try Self.write("\(device.number) \(bytes)", to: "\(path)/blkio.throttle.write_bps_device")
    }

    /// Puts a process under it.
    public func hold(_ pid: Int32) throws(SystemError) { try Self.write("\(pid)", to: "\(path)/cgroup.procs") }

    private static func write(_ text: String, to path: String) throws(SystemError) {
        let number = unsafe open(path, O_WRONLY | O_CLOEXEC)
        guard number >= 0 else { throw SystemError(cannot: "open", path, .current) }
        let fd = OwnedFD(owning: number)
        var text = text
        let written = text.withUTF8 { unsafe Glibc.write(fd.number, $0.baseAddress, $0.count) }
        guard written == text.utf8.count else { throw SystemError(cannot: "write to", path, .current) }
    }

    deinit { unsafe rmdir(path) }
}
