internal import CWire
internal import VhostUser

/// What a front-end tells a file system that it can do, and how much it wants at once (`fuse_init_in`).
public struct FileSessionOffer: Hashable, Sendable {
    /// FUSE_INIT flags, the lower 32 bits and, above them, `flags2`.
    public var flags: FileFeatures
    /// Of the protocol, 7.x.
    public var minor: UInt32
    public var maximumReadahead: UInt32

    public init(flags: FileFeatures = .linux, minor: UInt32 = 38, maximumReadahead: UInt32 = 1 << 20) {
        self.flags = flags
        self.minor = minor
        self.maximumReadahead = maximumReadahead
    }
}

/// What the two sides have agreed on (`fuse_init_out`).
public struct FileSessionLimits: Hashable, Sendable {
    /// Of the protocol, 7.x: the lower of both sides'.
    public var minor: UInt32
    public var flags: FileFeatures
    /// Bytes of one WRITE.
    public var maximumWrite: Int
    /// Pages of one request, where FUSE_MAX_PAGES was agreed on; 32 else.
    public var maximumPages: Int
    /// Nanoseconds that a time stamp may be inexact by.
    public var timeGranularity: UInt32

    init(_ wire: wire_fuse_init_out) {
        minor = wire.minor
        flags = FileFeatures(rawValue: UInt64(wire.flags) | UInt64(wire.flags2) << 32)
        maximumWrite = Int(wire.max_write)
        maximumPages = flags.contains(.maximumPages) ? Int(wire.max_pages) : 32
        timeGranularity = wire.time_gran
    }
}

/// Flags of FUSE_INIT, `flags2` from bit 32 on.
public struct FileFeatures: OptionSet, Hashable, Sendable {
    public var rawValue: UInt64

    public init(rawValue: UInt64) { self.rawValue = rawValue }

    private init(bit: Int) { rawValue = 1 << UInt64(bit) }

    public static let asynchronousRead = FileFeatures(bit: 0)
    public static let posixLocks = FileFeatures(bit: 1)
    public static let atomicTruncate = FileFeatures(bit: 3)
    public static let exportSupport = FileFeatures(bit: 4)
    public static let bigWrites = FileFeatures(bit: 5)
    /// The umask comes with the request, and the device applies it (default ACLs go before it).
    public static let dontMask = FileFeatures(bit: 6)
    public static let fileLocks = FileFeatures(bit: 10)
    public static let automaticInvalidation = FileFeatures(bit: 12)
    public static let readDirectoryPlus = FileFeatures(bit: 13)
    public static let adaptiveReadDirectoryPlus = FileFeatures(bit: 14)
    public static let asynchronousDirect = FileFeatures(bit: 15)
    public static let writebackCache = FileFeatures(bit: 16)
    public static let parallelDirectoryOperations = FileFeatures(bit: 18)
    public static let handleKillPrivileges = FileFeatures(bit: 19)
    public static let posixACL = FileFeatures(bit: 20)
    public static let abortError = FileFeatures(bit: 21)
    public static let maximumPages = FileFeatures(bit: 22)
    public static let explicitInvalidation = FileFeatures(bit: 25)
    public static let submounts = FileFeatures(bit: 27)
    public static let handleKillPrivilegesV2 = FileFeatures(bit: 28)
    public static let extendedSetXattr = FileFeatures(bit: 29)
    /// `flags2` is there.
    public static let extendedInit = FileFeatures(bit: 30)
    public static let securityContext = FileFeatures(bit: 32)
    public static let createSuppGroup = FileFeatures(bit: 34)

    /// What a Linux guest offers that has no shared cache window, less what is known to no back-end here.
    public static let linux: FileFeatures = [
        .asynchronousRead, .posixLocks, .atomicTruncate, .exportSupport, .bigWrites, .dontMask, .fileLocks,
        .automaticInvalidation, .readDirectoryPlus, .adaptiveReadDirectoryPlus, .asynchronousDirect,
        .parallelDirectoryOperations, .handleKillPrivileges, .posixACL, .abortError, .maximumPages,
        .explicitInvalidation, .submounts, .handleKillPrivilegesV2, .extendedSetXattr, .extendedInit,
    ]
}

/// The configuration space of a file system: `virtio_fs_config`. Virtio 1.2, section 5.11.4.
public struct FileSystemConfiguration: Hashable, Sendable {
    /// By which a guest mounts it, up to 36 bytes of UTF-8.
    public var tag: String
    /// How many request queues there are, the high-priority one not among them.
    public var requestQueueCount: UInt32

    /// - Parameter bytes: the first 40 bytes of the configuration space, or more.
    public init(_ bytes: [UInt8]) {
        precondition(bytes.count >= 40, "virtio_fs_config has 40 bytes")
        tag = String(decoding: bytes[..<36].prefix { $0 != 0 }, as: UTF8.self)
        requestQueueCount = littleEndian(bytes[36..<40])
    }
}

extension FrontendBehaviour {
    /// QEMU's vhost-user-fs: it has tag and number of queues from its own command line, asks for no configuration, and
    /// keeps no inflight region.
    public static let qemuFileSystem = FrontendBehaviour(
        features: VirtioFeatures.ring, protocolFeatures: [.mq, .logSharedMemory, .replyAck, .backendRequests, .status],
        acknowledgement: .memory, memoryMessages: .table(times: 1), enabling: .last, configurationSize: 60,
        usesInflight: false)
}
