internal import CLinux
internal import CWire
internal import Glibc
internal import Platform

// Translated users and groups: a file whose owner or group has no number with the driver is a stranger's. The driver's
// kernel shows it as nobody's and lets its root do everything with it, and the server could: it is the host's root. So
// the server holds to what the host's kernel holds to for a user namespace or an idmapped mount: nobody there owns such
// a file, and nobody's privileges reach it; what is left are the permissions that its mode gives to others.

extension Passthrough {
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
        case .symlink, .makeNode, .makeDirectory, .create, .temporaryFile: try check(node, [.write, .search])
        case .unlink(let name), .removeDirectory(let name): try checkRemoval(node, name, request)
        case .rename(let name, to: let parent, let newName, flags: _):
            try checkRemoval(node, name, request, isMoving: node != parent)
            try checkRemoval(parent, newName, request, isMoving: node != parent)
        case .link(node: let source, _):
            try check(node, [.write, .search])
            try check(source, .ownership)
        case .open(let arguments): try check(node, wish(toOpen: arguments.flags))
        case .openDirectory: try check(node, .read)
        // Entries with attributes are looked up, each.
        case .readDirectory(_, plus: true): try check(node, [.read, .search])
        case .setAttributes(let arguments): try check(node, wish(toChange: arguments))
        case .setAttribute, .removeAttribute: try check(node, .ownership)
        case .getAttribute, .listAttributes, .getLock: try check(node, .read)
        case .setLock(let arguments, waits: _): try check(node, Self.wish(toLock: arguments))
        // What anybody may, and what goes by an open file: that was looked at when it was opened. All of them, so that
        // the next call that there will be has to say what it wants.
        case .forget, .batchForget, .getAttributes, .statx, .readLink, .read, .write, .statistics, .release, .flush,
            .synchronize, .readDirectory, .releaseDirectory, .synchronizeDirectory, .synchronizeAll, .access,
            .allocate, .seek, .copyRange, .interrupt:
            break
        }
    }

    /// CREATE has found a file.
    mutating func checkStranger(_ node: UInt64, toOpen flags: UInt32) throws(Errno) {
        guard !session.hasIdentityIDs else { return }
        try check(node, wish(toOpen: flags))
    }

    private func wish(toOpen flags: UInt32) -> Wish {
        let flags = openFlags(flags)
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
    private func wish(toChange arguments: wire_fuse_setattr_in) -> Wish {
        let times = (has(arguments, WIRE_FUSE_FATTR_ATIME_BIT), has(arguments, WIRE_FUSE_FATTR_MTIME_BIT))
        let now = (has(arguments, WIRE_FUSE_FATTR_ATIME_NOW_BIT), has(arguments, WIRE_FUSE_FATTR_MTIME_NOW_BIT))
        let isOwners =
            has(arguments, WIRE_FUSE_FATTR_MODE_BIT) || has(arguments, WIRE_FUSE_FATTR_UID_BIT)
            || has(arguments, WIRE_FUSE_FATTR_GID_BIT)
        return isOwners || times != now ? .ownership : .write
    }

    /// BSD locks are on what the driver has open.
    private static func wish(toLock arguments: wire_fuse_lk_in) -> Wish {
        if arguments.lk_flags & (1 << UInt32(WIRE_FUSE_LK_FLOCK_BIT)) != 0 { return [] }
        return switch Int32(bitPattern: arguments.lk.type) {
        case F_WRLCK: .write
        case F_RDLCK: .read
        default: []
        }
    }

    /// Whose a file is, and what its mode lets the driver do with it.
    private struct Standing {
        var isStranger: Bool
        /// Of a stranger's: what others may, and the group or the owner if that one is the driver's. Its kernel has
        /// told these apart. With access lists the bits of the group are not the group's.
        var allowed: Wish
        var mode: UInt32
        /// On the host.
        var owner: UInt32
    }

    private func standing(_ fd: Int32, _ name: UnsafePointer<CChar>) throws(Errno) -> Standing {
        var status = statx()
        let flags = HostFlags.emptyPath | AT_SYMLINK_NOFOLLOW
        guard unsafe clinux_statx(fd, name, flags, HostFlags.basicStatus, &status) == 0 else { throw .current }
        let isUserKnown = session.description.userIDs.contains(host: status.stx_uid)
        let isGroupKnown = session.description.groupIDs.contains(host: status.stx_gid)
        let mode = UInt32(status.stx_mode)
        var allowed = mode & 7
        if isGroupKnown, !session.description.hasACLs { allowed |= mode >> 3 & 7 }
        if isUserKnown { allowed |= mode >> 6 & 7 }
        return Standing(
            isStranger: !isUserKnown || !isGroupKnown, allowed: Wish(rawValue: allowed), mode: mode,
            owner: status.stx_uid)
    }

    private mutating func check(_ node: UInt64, _ wish: Wish) throws(Errno) {
        if wish.isEmpty { return }
        let held = try hold(node)
        defer { drop(held) }
        try check(unsafe standing(held.fd, ""), wish)
    }

    private func check(_ standing: Standing, _ wish: Wish) throws(Errno) {
        guard standing.isStranger else { return }
        if wish.contains(.ownership) { throw .notPermitted }
        if !wish.isSubset(of: standing.allowed) { throw .permissionDenied }
    }

    /// A name that goes. In a sticky directory only the directory's owner takes a stranger's file away; one that moves
    /// to another directory is changed itself, if it is a directory.
    private mutating func checkRemoval(
        _ node: UInt64, _ name: FuseName, _ request: borrowing FuseRequest, isMoving: Bool = false
    ) throws(Errno) {
        let held = try hold(node)
        defer { drop(held) }
        let directory = unsafe try standing(held.fd, "")
        try check(directory, [.write, .search])
        let victim: Standing
        do throws(Errno) {
            victim = unsafe try standing(held.fd, name.bytes)
        } catch {
            // There is none; the call itself says what that means.
            if error == .noEntry { return }
            throw error
        }
        guard victim.isStranger else { return }
        if directory.mode & 0o1000 != 0, session.description.userIDs.host(request.user) != directory.owner {
            throw .notPermitted
        }
        if isMoving, victim.mode & S_IFMT == S_IFDIR { try check(victim, .write) }
    }
}
