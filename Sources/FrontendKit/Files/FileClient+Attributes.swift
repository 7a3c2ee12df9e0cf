internal import CWire

/// What belongs to a node beside its data.
extension FileClient {
    /// What SETATTR changes; what is nil stays.
    public struct Change: Hashable, Sendable {
        /// A time to set.
        public enum Moment: Hashable, Sendable {
            case now
            case at(FileTime)
        }

        public var mode: UInt32?
        public var user: UInt32?
        public var group: UInt32?
        public var size: UInt64?
        public var accessed: Moment?
        public var modified: Moment?
        /// An open file to do it through.
        public var handle: UInt64?
        /// Set-user-ID and set-group-ID bits are to go (FATTR_KILL_SUIDGID).
        public var killsPrivileges = false

        public init(
            mode: UInt32? = nil, user: UInt32? = nil, group: UInt32? = nil, size: UInt64? = nil,
            accessed: Moment? = nil, modified: Moment? = nil, handle: UInt64? = nil, killsPrivileges: Bool = false
        ) {
            self.mode = mode
            self.user = user
            self.group = group
            self.size = size
            self.accessed = accessed
            self.modified = modified
            self.handle = handle
            self.killsPrivileges = killsPrivileges
        }

        var wire: wire_fuse_setattr_in {
            var wire = wire_fuse_setattr_in()
            func set(_ bit: UInt32) { wire.valid |= 1 << bit }
            if let mode { (wire.mode, _) = (mode, set(0)) }
            if let user { (wire.uid, _) = (user, set(1)) }
            if let group { (wire.gid, _) = (group, set(2)) }
            if let size { (wire.size, _) = (size, set(3)) }
            if let accessed {
                set(4)
                if case .at(let time) = accessed {
                    (wire.atime, wire.atimensec) = (UInt64(bitPattern: time.seconds), time.nanoseconds)
                } else {
                    set(7)
                }
            }
            if let modified {
                set(5)
                if case .at(let time) = modified {
                    (wire.mtime, wire.mtimensec) = (UInt64(bitPattern: time.seconds), time.nanoseconds)
                } else {
                    set(8)
                }
            }
            if let handle { (wire.fh, _) = (handle, set(6)) }
            if killsPrivileges { set(11) }
            return wire
        }
    }

    public mutating func attributes(of node: UInt64, handle: UInt64? = nil) throws(FileError) -> FileAttributes {
        let wire = wire_fuse_getattr_in(getattr_flags: handle == nil ? 0 : 1, dummy: 0, fh: handle ?? 0)
        return FileAttributes(try call(.getAttributes, node, wire, answering: wire_fuse_attr_out.self).attr)
    }

    public mutating func change(_ node: UInt64, _ change: Change) throws(FileError) -> FileAttributes {
        FileAttributes(try call(.setAttributes, node, change.wire, answering: wire_fuse_attr_out.self).attr)
    }

    public mutating func fileSystemStatus(_ node: UInt64 = FileClient.root) throws(FileError) -> FileSystemStatus {
        FileSystemStatus(try call(.fileSystemStatus, node, [], answering: wire_fuse_statfs_out.self).st)
    }

    // MARK: Extended attributes

    /// - Parameter flags: 0, or XATTR_CREATE (1), XATTR_REPLACE (2).
    public mutating func setExtendedAttribute(
        _ node: UInt64, _ name: [UInt8], _ value: [UInt8], flags: UInt32 = 0
    ) throws(FileError) {
        // The longer form of the arguments only where it was agreed on.
        var arguments = Self.bytes(
            of: wire_fuse_setxattr_in(size: UInt32(value.count), flags: flags, setxattr_flags: 0, padding: 0))
        if limits?.flags.contains(.extendedSetXattr) != true { arguments = Array(arguments[..<8]) }
        try call(.setExtendedAttribute, node, arguments + Self.bytes([name]), data: value)
    }

    public mutating func extendedAttribute(
        _ node: UInt64, _ name: [UInt8], capacity: Int = 65536
    ) throws(FileError) -> [UInt8] {
        let wire = wire_fuse_getxattr_in(size: UInt32(capacity), padding: 0)
        let arguments = Self.bytes(of: wire) + Self.bytes([name])
        return unsafe try perform(.getExtendedAttribute, node, arguments: arguments, answer: .data(capacity)) {
            unsafe Array($0)
        }
    }

    /// The names of a node's extended attributes, in the device's order.
    public mutating func extendedAttributes(_ node: UInt64, capacity: Int = 65536) throws(FileError) -> [[UInt8]] {
        let wire = wire_fuse_getxattr_in(size: UInt32(capacity), padding: 0)
        let names = unsafe try perform(
            .listExtendedAttributes, node, arguments: Self.bytes(of: wire), answer: .data(capacity)
        ) { unsafe Array($0) }
        guard names.isEmpty || names.last == 0 else {
            throw .malformed(.listExtendedAttributes, "the last name has no end")
        }
        return names.split(separator: 0).map(Array.init)
    }

    public mutating func removeExtendedAttribute(_ node: UInt64, _ name: [UInt8]) throws(FileError) {
        try call(.removeExtendedAttribute, node, Self.bytes([name]))
    }
}
