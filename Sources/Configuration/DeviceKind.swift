public import ControlAPI

/// What a device is, and the section that asks for one: `[disk.NAME]`, `[share.NAME]`.
public enum DeviceKind: String, Sendable, CaseIterable {
    case disk
    case share

    /// More loop threads no device has: a session record has room for 16 rings, of which a share needs two more, a disk
    /// one.
    var maximumThreads: Int { self == .disk ? 15 : 14 }

    /// Descriptors of a ring unless said otherwise. libvirt asks for 1024 of a share, QEMU itself for 128; of a disk
    /// both ask for at most 256.
    public var standardQueueSize: Int { self == .disk ? 256 : 1024 }

    /// A virtio-fs device has one queue more than it has request queues.
    var maximumQueues: Int { self == .disk ? 64 : 63 }
}

extension DeviceParameters {
    public var kind: DeviceKind { share == nil ? .disk : .share }

    /// Where a file asks for it, such as `disk.db`.
    var section: String { "\(kind.rawValue).\(name)" }
}
