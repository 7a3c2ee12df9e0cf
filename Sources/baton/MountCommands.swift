internal import ArgumentParser
internal import CLinux
internal import Configuration
internal import ControlAPI
internal import Glibc
internal import Platform

struct Mount: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Mount a share on this host, as guests see it.",
        discussion: """
            It is a device of its own with the share's options, whose workers can be killed and upgraded as all \
            others. It ends when it is unmounted: baton umount, or umount.
            """)

    @Argument(help: "The share.")
    var share: String

    @Argument(help: "The directory to mount it at.")
    var path: String

    @Option(help: "What the device is called (SHARE.mount).")
    var name: String?

    @Option(help: "Loop threads, 1 to 14.")
    var threads = 1

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let place = try MountPoint(path)
            let found = try client.call(.status, StatusParameters(name: share), as: [DeviceInfo].self)
            guard let source = found.first?.disk, source.share != nil, source.share?.mountPoint == nil else {
                throw SystemError(cannot: "mount", share, nil, advice: "It is no share: see baton list")
            }
            var device = source
            device.name = name ?? "\(share).mount"
            (device.socket, device.origin) = (nil, nil)
            (device.queues, device.threads) = (threads, threads)
            device.queueSize = DeviceKind.share.standardQueueSize
            device.share?.mountPoint = place.path
            let made = try client.call(.create, device, as: DeviceInfo.self)
            do {
                try mount(made, place)
            } catch {
                _ = try? client.call(.delete, NameParameters(name: device.name), as: Empty.self)
                throw error
            }
            if connection.json { return try printJSON(made) }
            printText("\(device.name): \(share) is mounted at \(place.path)\n", to: STDOUT_FILENO)
        }
    }

    /// Makes a file system that is mounted nowhere yet, has it served, and mounts it then: whoever dies in between
    /// leaves nothing behind.
    private func mount(_ device: DeviceInfo, _ place: MountPoint) throws {
        let number = unsafe open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard number >= 0 else {
            throw SystemError(cannot: "open", "/dev/fuse", .current, advice: "The module fuse may not be loaded")
        }
        let fuse = OwnedFD(owning: number)
        let tree = unsafe clinux_make_fuse_mount(fuse.number, share, device.disk.readOnly ? 1 : 0)
        guard tree >= 0 else {
            throw SystemError(cannot: "make", "a mount", .current, advice: "It takes root (CAP_SYS_ADMIN)")
        }
        let made = OwnedFD(owning: tree)
        try hand(fuse, to: device)
        guard unsafe clinux_attach_mount(made.number, place.path) == 0 else {
            throw SystemError(cannot: "mount at", place.path, .current)
        }
    }

    /// How long the worker may take to be there, and to answer, in milliseconds.
    private static let patience: Int32 = 30_000

    /// Gives /dev/fuse to the device, where front-ends connect to others.
    private func hand(_ fuse: borrowing OwnedFD, to device: DeviceInfo) throws {
        let path = device.disk.socket ?? ""
        var word = UInt8(ascii: "m")
        do throws(Errno) {
            let stream = try UnixStream(connectingTo: path, milliseconds: Self.patience)
            try unsafe withUnsafeBytes(of: word) { bytes throws(Errno) in
                try unsafe stream.send(bytes, fds: [fuse.number])
            }
            let isAnswered = waitForInput(stream.fd.number, milliseconds: Self.patience)
            word = 0
            if isAnswered {
                _ = try unsafe withUnsafeMutableBytes(of: &word) { bytes throws(Errno) in
                    try unsafe stream.receive(into: bytes, waiting: false)
                }
            }
        } catch {
            throw SystemError(cannot: "hand /dev/fuse to", device.disk.name, error)
        }
        guard word == UInt8(ascii: "m") else {
            throw SystemError(
                cannot: "mount", share, nil, advice: "No worker serves \(device.disk.name): see baton status")
        }
    }
}

struct Unmount: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "umount", abstract: "Unmount a share from this host.")

    @Argument(help: "Where it is mounted, or the device.")
    var path: String

    @Flag(help: "Take it away from the tree of files now, and end it when nobody uses it any more.")
    var lazy = false

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let devices = try client.call(.status, StatusParameters(), as: [DeviceInfo].self)
            let place = (try? MountPoint(path))?.path
            guard
                let device = devices.last(where: { device in
                    guard let mounted = device.disk.share?.mountPoint else { return false }
                    return device.disk.name == path || mounted == place
                })
            else { throw SystemError(cannot: "unmount", path, nil, advice: "It is no mount of Baton: see baton list") }
            let mounted = device.disk.share?.mountPoint ?? path
            guard unsafe umount2(mounted, lazy ? Int32(MNT_DETACH) : 0) == 0 else {
                let error = Errno.current
                throw SystemError(
                    cannot: "unmount", mounted, error,
                    advice: error == .busy
                        ? "Somebody uses it (fuser -m \(mounted)); --lazy does not wait for them" : "")
            }
            if try lazy || waitForEnd(of: device.disk.name, client) {
                if connection.json { return try printJSON(Empty()) }
                return printText("\(device.disk.name): unmounted from \(mounted)\n", to: STDOUT_FILENO)
            }
            throw SystemError(cannot: "end", device.disk.name, nil, advice: "\(mounted) is unmounted: see baton status")
        }
    }

    /// The device ends by itself.
    private func waitForEnd(of name: String, _ client: Client) throws -> Bool {
        let end = monotonicNanoseconds() + 10_000_000_000
        while monotonicNanoseconds() < end {
            let devices = try client.call(.status, StatusParameters(), as: [DeviceInfo].self)
            if !devices.contains(where: { $0.disk.name == name }) { return true }
            pause(milliseconds: 20)
        }
        return false
    }
}

/// A directory to mount at, without links: as lists of mounts show it.
private struct MountPoint {
    let path: String

    init(_ text: String) throws {
        guard let resolved = unsafe realpath(text, nil) else { throw SystemError(cannot: "mount at", text, .current) }
        defer { unsafe free(resolved) }
        path = unsafe String(cString: resolved)
    }
}
