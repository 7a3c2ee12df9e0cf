internal import CWire

/// What a driver may keep of a share, and for how long.
public enum ShareCacheMode: String, Sendable, CaseIterable {
    /// Nothing: data is always read from the host, names and attributes are asked for each time.
    case none
    /// Names and attributes for a second; data until the file is opened anew.
    case auto
    /// For a day: nobody else changes the directory.
    case always
    /// Names and attributes for a day, data never.
    case metadata

    /// How long names and attributes are good, in seconds.
    public var seconds: UInt64 {
        switch self {
        case .none: 0
        case .auto: 1
        case .always, .metadata: 86400
        }
    }
}

/// Whether nodes are remembered by the kernel's file handles or by descriptors.
public enum FileHandleUse: String, Sendable, CaseIterable {
    /// A descriptor for each node.
    case never
    /// A handle where the file system has handles, and this process may open them.
    case preferred
    /// Nodes without a handle are refused (EOPNOTSUPP).
    case required
}

/// What is shared, and how: what the server tells a driver, and what the file system does.
public struct ShareDescription: Sendable, Equatable {
    /// The name that a guest mounts it by: 1 to 36 bytes of UTF-8.
    public var tag: String
    /// Request queues, 1 to 254. The device has one queue more: hiprio, with index 0.
    public var requestQueueCount = 1
    /// Descriptors of a queue, at most: a power of two, at most 1024.
    public var maximumQueueSize = 1024
    /// Everything that would change it is refused (EROFS).
    public var isReadOnly = false
    public var cache = ShareCacheMode.auto
    /// The driver collects writes (FUSE_WRITEBACK_CACHE).
    public var writesBack = false
    public var hasExtendedAttributes = false
    /// How names of extended attributes are changed on their way; nil: not at all.
    public var attributeRules: AttributeRules?
    /// POSIX access control lists; they need extended attributes.
    public var hasACLs = false
    /// New files get the security label that the driver sends with the request.
    public var hasSecurityLabels = false
    /// POSIX locks of the driver are the host's, too; else it keeps them to itself.
    public var hasPOSIXLocks = false
    /// The same of BSD locks (flock).
    public var hasFlock = false
    /// O_DIRECT of the driver's programs reaches the host's open.
    public var allowsDirectIO = false
    /// Roots of other mounts below the directory are marked as such (FUSE_ATTR_SUBMOUNT).
    public var announcesSubmounts = false
    /// Directories are read with attributes (READDIRPLUS) where the driver likes to.
    public var readsDirectoriesPlus = true
    /// Set-user-ID, set-group-ID bits and file capabilities are taken from files by whoever may not keep them
    /// (FUSE_HANDLE_KILLPRIV_V2).
    public var killsPrivileges = true
    public var fileHandles = FileHandleUse.preferred
    /// The driver's users and groups as the host's.
    public var userIDs = IDMap.identity
    public var groupIDs = IDMap.identity
    /// Changes of names are operations of the engine, as far as it has them, whose completions outlive a worker. Off,
    /// they are system calls of the loop: the kernel carries them out in a thread of its own else, which takes some
    /// 10 µs more.
    public var changesNamesThroughEngine = false

    /// Bytes of data of one request, at most.
    @inlinable public static var maximumTransfer: Int { 1 << 20 }

    public init(tag: String) { self.tag = tag }

    /// The virtio feature bits of the device: none of its own, and those of the ring.
    public var features: UInt64 {
        let bits = [
            WIRE_VIRTIO_RING_F_INDIRECT_DESC, WIRE_VIRTIO_RING_F_EVENT_IDX, WIRE_VIRTIO_F_VERSION_1,
            WIRE_VIRTIO_F_RING_PACKED,
        ]
        return bits.reduce(0) { $0 | 1 << UInt64($1) }
    }

    /// The device's configuration space: struct virtio_fs_config (VIRTIO 1.2, 5.11.4).
    public var configuration: [UInt8] {
        var bytes = Array(tag.utf8.prefix(Int(WIRE_VIRTIO_FS_TAG_BYTES)))
        bytes += [UInt8](repeating: 0, count: Int(WIRE_VIRTIO_FS_TAG_BYTES) - bytes.count)
        for shift in [0, 8, 16, 24] { bytes.append(UInt8(truncatingIfNeeded: requestQueueCount >> shift)) }
        return bytes
    }
}
