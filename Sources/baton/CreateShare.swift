internal import ArgumentParser
internal import Configuration
internal import ControlAPI
internal import Glibc
internal import Platform

struct CreateShare: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "share", abstract: "Share a directory over virtio-fs.")

    @Argument(help: "Its name: letters, digits, dots, dashes and underscores.")
    var name: String

    @Option(help: "The directory.")
    var directory: String

    @Option(help: "The name that a guest mounts it by, 1 to 36 bytes (NAME; QEMU has one of its own).")
    var tag: String?

    @Option(help: "Where front-ends connect (NAME.sock in batond's state directory).")
    var socket: String?

    @Option(help: "Request queues, 1 to 63.")
    var queues = 1

    @Option(help: "The largest ring that is accepted, 2 to 1024.")
    var queueSize = DeviceKind.share.standardQueueSize

    @Option(help: "Loop threads, 1 to 14, at most as many as queues.")
    var threads = 1

    @Flag(help: "Refuse all changes.")
    var readOnly = false

    @Option(help: "What a guest may keep: never, metadata, auto or always (auto).")
    var cache: String?

    @Flag(help: "Let the guest collect writes.")
    var writeback = false

    @Flag(help: "Extended attributes.")
    var xattr = false

    @Option(help: "How names of extended attributes are changed on their way, as virtiofsd spells it.")
    var xattrmap: String?

    @Flag(name: .customLong("posix-acl"), help: "Access control lists.")
    var posixACL = false

    @Flag(help: "New files get the security label that the guest sends.")
    var securityLabel = false

    @Flag(help: "flock of the guest is the host's, too.")
    var flock = false

    @Flag(help: "POSIX locks of the guest are the host's, too.")
    var posixLock = false

    @Flag(name: .customLong("allow-direct-io"), help: "O_DIRECT of the guest reaches the host's files.")
    var allowDirectIO = false

    @Flag(help: "Do not tell the guest where other file systems begin.")
    var noAnnounceSubmounts = false

    @Flag(help: "Read directories without attributes.")
    var noReaddirplus = false

    @Option(name: .customLong("translate-uid"), help: "GUEST:HOST:COUNT of users; several with commas between.")
    var translateUID: String?

    @Option(name: .customLong("translate-gid"), help: "GUEST:HOST:COUNT of groups; several with commas between.")
    var translateGID: String?

    @Option(help: "never, prefer or mandatory: the kernel's handles instead of open descriptors (prefer).")
    var inodeFileHandles: String?

    @Option(help: "Files that a guest may know at once (2097152).")
    var maxNodes: Int?

    @Option(help: "Files that it may have open at once (16384).")
    var maxFiles: Int?

    @OptionGroup var common: CommonOptions

    @OptionGroup var resources: ResourceOptions

    @OptionGroup var limits: LimitOptions

    @OptionGroup var connection: ConnectionOptions

    private var device: DeviceParameters {
        var share = ShareParameters(directory: absolute(directory), tag: tag ?? name)
        (share.cache, share.xattrmap, share.inodeFileHandles) = (cache, xattrmap, inodeFileHandles)
        (share.translateUID, share.translateGID) = (translateUID, translateGID)
        (share.maxNodes, share.maxFiles) = (maxNodes, maxFiles)
        func asked(_ flag: Bool) -> Bool? { flag ? true : nil }
        (share.writeback, share.xattr, share.posixACL) = (asked(writeback), asked(xattr), asked(posixACL))
        (share.securityLabel, share.flock, share.posixLock) = (asked(securityLabel), asked(flock), asked(posixLock))
        (share.allowDirectIO, share.noReaddirplus) = (asked(allowDirectIO), asked(noReaddirplus))
        share.noAnnounceSubmounts = asked(noAnnounceSubmounts)
        var device = DeviceParameters(
            name: name, file: nil, socket: socket.map(absolute), queues: queues, queueSize: queueSize,
            threads: threads, readOnly: readOnly)
        device.share = share
        common.apply(to: &device)
        resources.apply(to: &device)
        limits.apply(to: &device)
        return device
    }

    func run() throws {
        try connection.run { client in
            let made = try client.call(.create, device, as: DeviceInfo.self)
            if connection.json { return try printJSON(made) }
            printText("\(name): front-ends connect at \(made.disk.socket ?? "")\n", to: STDOUT_FILENO)
        }
    }
}
