internal import CLinux
internal import CWire
internal import Glibc
internal import Platform

// Translated users and groups: a file whose owner or group has no number with the driver is a stranger's. The driver's
// kernel shows it as nobody's and lets its root do everything with it, and the server could: it is the host's root. So
// the server holds to what the host's kernel holds to for a user namespace or an idmapped mount: nobody there owns such a
// file, and nobody's privileges reach it; what is left are the permissions that its mode gives to others.

extension Passthrough {
    /// Users and groups of the driver are the host's: there are no strangers.
    var hasIdentityIDs: Bool {
        session.description.userIDs.isIdentity && session.description.groupIDs.isIdentity
    }

    /// What a call wants of a file, as `rwx` of a mode; or to be its owner.
    private struct Wish: OptionSet {
        let rawValue: UInt32

        static let search = Wish(rawValue: 1)
        static let write = Wish(rawValue: 2)
        static let read = Wish(rawValue: 4)
        static let ownership = Wish(rawValue: 8)
    }

    /// - Throws: EACCES or EPERM, when a call wants of a stranger's file what it must not have.
    mutating func checkStrangers(_ call: borrowing FuseCall, _ request: borrowing FuseRequest) throws(Errno) {
        let node = request.node
        switch call {
        case .lookUp: try check(node, .search)
        case .symlink, .makeNode, .makeDirectory, .unlink, .removeDirectory, .create, .temporaryFile:
            try check(node, [.write, .search])
        case .rename(_, to: let parent, _, flags: _):
            try check(node, [.write, .search])
            try check(parent, [.write, .search])
        case .link(node: let source, _):
            try check(node, [.write, .search])
            try check(source, .ownership)
        case .open(let arguments): try check(node, Self.wish(toOpen: arguments.flags))
        case .openDirectory: try check(node, .read)
        case .setAttributes(let arguments): try check(node, Self.wish(toChange: arguments.valid))
        case .setAttribute, .removeAttribute: try check(node, .ownership)
        case .getAttribute, .listAttributes: try check(node, .read)
        default: break
        }
    }

    /// CREATE has found a file.
    mutating func checkStranger(_ node: UInt64, toOpen flags: UInt32) throws(Errno) {
        guard !hasIdentityIDs else { return }
        try check(node, Self.wish(toOpen: flags))
    }

    private static func wish(toOpen flags: UInt32) -> Wish {
        let flags = Int32(bitPattern: flags)
        var wish: Wish =
            switch flags & O_ACCMODE {
            case O_RDONLY: .read
            case O_WRONLY: .write
            default: [.read, .write]
            }
        if flags & O_TRUNC != 0 { wish.insert(.write) }
        return wish
    }

    /// A length may be set by whoever may write, and the present time; the rest is the owner's.
    private static func wish(toChange valid: UInt32) -> Wish {
        let size = UInt32(1) << UInt32(WIRE_FUSE_FATTR_SIZE_BIT)
        let handle = UInt32(1) << UInt32(WIRE_FUSE_FATTR_FH_BIT)
        let kill = UInt32(1) << UInt32(WIRE_FUSE_FATTR_KILL_SUIDGID_BIT)
        return valid & ~(size | handle | kill) == 0 ? .write : .ownership
    }

    private mutating func check(_ node: UInt64, _ wish: Wish) throws(Errno) {
        let held = try hold(node)
        defer { drop(held) }
        var status = statx()
        let mask = UInt32(STATX_UID | STATX_GID | STATX_MODE)
        guard unsafe clinux_statx(held.fd, "", HostFlags.emptyPath, mask, &status) == 0 else { throw .current }
        let isUserKnown = session.description.userIDs.contains(host: status.stx_uid)
        let isGroupKnown = session.description.groupIDs.contains(host: status.stx_gid)
        if isUserKnown, isGroupKnown { return }
        if wish.contains(.ownership) { throw .notPermitted }
        // The driver's kernel has told owner, group and others apart, where it knows them.
        var allowed = UInt32(status.stx_mode) & 7
        if isGroupKnown { allowed |= UInt32(status.stx_mode) >> 3 & 7 }
        if isUserKnown { allowed |= UInt32(status.stx_mode) >> 6 & 7 }
        if !wish.isSubset(of: Wish(rawValue: allowed)) { throw .permissionDenied }
    }
}
