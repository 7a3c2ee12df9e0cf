internal import CLinux
internal import CWire
internal import Glibc
internal import Platform

// MARK: - Attributes

extension Passthrough {
    /// The host's attributes as the driver's.
    func attributes(_ status: borrowing statx) -> wire_fuse_attr {
        var to = wire_fuse_attr()
        to.ino = status.stx_ino
        to.size = status.stx_size
        to.blocks = status.stx_blocks
        to.atime = UInt64(bitPattern: status.stx_atime.tv_sec)
        to.mtime = UInt64(bitPattern: status.stx_mtime.tv_sec)
        to.ctime = UInt64(bitPattern: status.stx_ctime.tv_sec)
        to.atimensec = status.stx_atime.tv_nsec
        to.mtimensec = status.stx_mtime.tv_nsec
        to.ctimensec = status.stx_ctime.tv_nsec
        to.mode = UInt32(status.stx_mode)
        to.nlink = status.stx_nlink
        to.uid = session.description.userIDs.guest(status.stx_uid)
        to.gid = session.description.groupIDs.guest(status.stx_gid)
        to.rdev = Self.encodeDevice(status.stx_rdev_major, status.stx_rdev_minor)
        to.blksize = status.stx_blksize
        return to
    }

    /// The kernel's new_encode_dev.
    static func encodeDevice(_ major: UInt32, _ minor: UInt32) -> UInt32 {
        minor & 0xff | major << 8 | (minor & ~0xff) << 12
    }

    /// The attributes of a descriptor as an answer.
    func answerAttributes(of fd: Int32) throws(Errno) -> FileResult {
        var status = statx()
        guard unsafe clinux_statx(fd, "", HostFlags.emptyPath, HostFlags.status, &status) == 0 else { throw .current }
        var answer = wire_fuse_attr_out()
        answer.attr_valid = session.description.cache.seconds
        answer.attr = attributes(status)
        return told(answer)
    }

    /// A descriptor of the request's node: the open file's, if the driver names one that it has, else the node's.
    mutating func withDescriptor<Result>(
        _ node: UInt64, handle: UInt64?, _ body: (inout Passthrough, Int32) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        if let handle {
            let slot = UInt32(truncatingIfNeeded: handle)
            if let fd = session.files.take(handle, .file) ?? session.files.take(handle, .directory) {
                defer { session.giveBack(slot) }
                // One of another node's is no way around what was checked of this one.
                guard session.files.node(of: slot) == node else { throw Errno(rawValue: EBADF) }
                return try body(&self, fd)
            }
        }
        let held = try hold(node)
        defer { drop(held) }
        return try body(&self, held.fd)
    }

    mutating func getAttributes(_ handle: UInt64?, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        try withDescriptor(request.node, handle: handle) { (files, fd) throws(Errno) in
            try files.answerAttributes(of: fd)
        }
    }

    mutating func extendedStatus(_ arguments: wire_fuse_statx_in, _ request: inout FuseRequest) throws(Errno)
        -> FileResult
    {
        // AT_STATX_SYNC_TYPE is all that the driver may choose; DIOALIGN and later fields have no place in the answer.
        let flags = HostFlags.emptyPath | Int32(bitPattern: arguments.sx_flags & 0x6000)
        let mask = arguments.sx_mask & UInt32(STATX_BASIC_STATS | STATX_BTIME)
        let handle = arguments.getattr_flags & 1 != 0 ? arguments.fh : nil
        return try withDescriptor(request.node, handle: handle) { (files, fd) throws(Errno) in
            var status = statx()
            guard unsafe clinux_statx(fd, "", flags, mask, &status) == 0 else { throw .current }
            return files.told(files.extended(status))
        }
    }

    private func extended(_ status: borrowing statx) -> wire_fuse_statx_out {
        var answer = wire_fuse_statx_out()
        answer.attr_valid = session.description.cache.seconds
        answer.stat.mask = status.stx_mask & UInt32(STATX_BASIC_STATS | STATX_BTIME)
        answer.stat.blksize = status.stx_blksize
        answer.stat.attributes = status.stx_attributes
        answer.stat.attributes_mask = status.stx_attributes_mask
        answer.stat.nlink = status.stx_nlink
        answer.stat.uid = session.description.userIDs.guest(status.stx_uid)
        answer.stat.gid = session.description.groupIDs.guest(status.stx_gid)
        answer.stat.mode = status.stx_mode
        answer.stat.ino = status.stx_ino
        answer.stat.size = status.stx_size
        answer.stat.blocks = status.stx_blocks
        func time(_ from: statx_timestamp) -> wire_fuse_sx_time {
            wire_fuse_sx_time(tv_sec: from.tv_sec, tv_nsec: from.tv_nsec, __reserved: 0)
        }
        answer.stat.atime = time(status.stx_atime)
        answer.stat.btime = time(status.stx_btime)
        answer.stat.ctime = time(status.stx_ctime)
        answer.stat.mtime = time(status.stx_mtime)
        answer.stat.rdev_major = status.stx_rdev_major
        answer.stat.rdev_minor = status.stx_rdev_minor
        answer.stat.dev_major = status.stx_dev_major
        answer.stat.dev_minor = status.stx_dev_minor
        return answer
    }

    mutating func readLink(_ request: inout FuseRequest) throws(Errno) -> FileResult {
        let held = try hold(request.node)
        defer { drop(held) }
        let room = min(request.answerRoom, 4096)
        let count = unsafe readlinkat(held.fd, "", answer.base.assumingMemoryBound(to: CChar.self), room)
        if count < 0 { throw Errno.current == .noEntry ? .invalidArgument : .current }
        return .bytes(unsafe FuseBytes(base: answer.base, count: count))
    }

    mutating func statistics(_ request: inout FuseRequest) throws(Errno) -> FileResult {
        let held = try hold(request.node)
        defer { drop(held) }
        var status = statvfs()
        guard unsafe fstatvfs(held.fd, &status) == 0 else { throw .current }
        var answer = wire_fuse_kstatfs()
        answer.blocks = UInt64(status.f_blocks)
        answer.bfree = UInt64(status.f_bfree)
        answer.bavail = UInt64(status.f_bavail)
        answer.files = UInt64(status.f_files)
        answer.ffree = UInt64(status.f_ffree)
        answer.bsize = UInt32(truncatingIfNeeded: status.f_bsize)
        answer.namelen = UInt32(truncatingIfNeeded: status.f_namemax)
        answer.frsize = UInt32(truncatingIfNeeded: status.f_frsize)
        return told(answer)
    }

    /// Whether the driver's user may, by the host's rules: asked as that user.
    mutating func access(_ mask: UInt32, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        guard mask & ~7 == 0 else { throw .invalidArgument }
        let held = try hold(request.node)
        defer { drop(held) }
        try becomeDriver(request, FuseExtras())
        defer { credentials.becomeServer() }
        guard clinux_faccess_empty(held.fd, Int32(mask)) == 0 else { throw .current }
        return .done
    }

    /// Works as the driver's user from now on.
    mutating func becomeDriver(_ request: borrowing FuseRequest, _ extras: FuseExtras) throws(Errno) {
        guard let user = session.description.userIDs.host(request.user),
            let group = session.description.groupIDs.host(request.group)
        else { throw Errno(rawValue: EOVERFLOW) }
        var supplementary: UInt32?
        if let extra = extras.group {
            guard let mapped = session.description.groupIDs.host(extra) else { throw Errno(rawValue: EOVERFLOW) }
            supplementary = mapped
        }
        if let error = credentials.become(user, group, supplementary) {
            credentials.becomeServer()
            throw error
        }
    }
}

// MARK: - SETATTR

extension Passthrough {
    func has(_ arguments: wire_fuse_setattr_in, _ bit: Int) -> Bool {
        arguments.valid & (1 << UInt32(bit)) != 0
    }

    mutating func setAttributes(
        _ arguments: wire_fuse_setattr_in, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        credentials.becomeServer()
        let handle = has(arguments, WIRE_FUSE_FATTR_FH_BIT) ? arguments.fh : nil
        let node = request.node
        let killsIDs = has(arguments, WIRE_FUSE_FATTR_KILL_SUIDGID_BIT)
        if has(arguments, WIRE_FUSE_FATTR_SIZE_BIT), arguments.size > UInt64(Int64.max) { throw Errno(rawValue: EFBIG) }
        return try withDescriptor(node, handle: handle) { (files, fd) throws(Errno) in
            files.credentials.becomeServer()
            // Another may have written to what this one has cut.
            if case .done = files.progressBefore { return try files.answerAttributes(of: fd) }
            if files.has(arguments, WIRE_FUSE_FATTR_MODE_BIT) { try files.setMode(fd, arguments.mode & 0o7777) }
            try files.setOwner(fd, arguments)
            if files.has(arguments, WIRE_FUSE_FATTR_SIZE_BIT) {
                try files.setSize(node, handle, Int64(arguments.size), killsIDs: killsIDs)
            }
            try files.setTimes(fd, arguments)
            files.noteDone()
            return try files.answerAttributes(of: fd)
        }
    }

    /// By descriptor where the kernel can (Linux 6.6), else over /proc/self/fd.
    private mutating func setMode(_ fd: Int32, _ mode: UInt32) throws(Errno) {
        if hasChmodByDescriptor {
            if clinux_chmod_empty(fd, mode) == 0 { return }
            let error = Errno.current
            guard error == .noSuchCall else { throw error }
            hasChmodByDescriptor = false
        }
        if fchmod(fd, mode) == 0 { return }
        // An O_PATH descriptor.
        guard Errno.current == Errno(rawValue: EBADF), session.processFiles >= 0 else { throw .current }
        if unsafe fchmodat(session.processFiles, descriptorName(fd), mode, 0) != 0 { throw .current }
    }

    private func setOwner(_ fd: Int32, _ arguments: wire_fuse_setattr_in) throws(Errno) {
        var (user, group) = (UInt32.max, UInt32.max)
        if has(arguments, WIRE_FUSE_FATTR_UID_BIT) {
            guard let mapped = session.description.userIDs.host(arguments.uid) else { throw .invalidArgument }
            user = mapped
        }
        if has(arguments, WIRE_FUSE_FATTR_GID_BIT) {
            guard let mapped = session.description.groupIDs.host(arguments.gid) else { throw .invalidArgument }
            group = mapped
        }
        guard user != .max || group != .max else { return }
        let flags = HostFlags.emptyPath | AT_SYMLINK_NOFOLLOW
        guard unsafe fchownat(fd, "", user, group, flags) == 0 else { throw .current }
    }

    private mutating func setSize(_ node: UInt64, _ handle: UInt64?, _ size: Int64, killsIDs: Bool) throws(Errno) {
        credentials.setMayKeepIDs(!killsIDs)
        defer { credentials.setMayKeepIDs(true) }
        if let handle, let fd = session.files.take(handle, .file) {
            defer { session.giveBack(UInt32(truncatingIfNeeded: handle)) }
            if ftruncate(fd, off_t(size)) == 0 { return }
            // Open for reading only: the driver's kernel has checked that it may.
            guard Errno.current == .invalidArgument || Errno.current == Errno(rawValue: EBADF) else { throw .current }
        }
        let fd = try reopen(node, O_RDWR)
        defer { close(fd) }
        credentials.setMayKeepIDs(!killsIDs)
        if ftruncate(fd, off_t(size)) != 0 { throw .current }
    }

    private func setTimes(_ fd: Int32, _ arguments: wire_fuse_setattr_in) throws(Errno) {
        let setsAccess = has(arguments, WIRE_FUSE_FATTR_ATIME_BIT)
        let setsChange = has(arguments, WIRE_FUSE_FATTR_MTIME_BIT)
        guard setsAccess || setsChange else { return }
        // UTIME_NOW and UTIME_OMIT
        let (now, omit) = ((1 << 30) - 1, (1 << 30) - 2)
        func time(_ sets: Bool, _ isNow: Bool, _ seconds: UInt64, _ part: UInt32) throws(Errno) -> timespec {
            if !sets { return timespec(tv_sec: 0, tv_nsec: omit) }
            if isNow { return timespec(tv_sec: 0, tv_nsec: now) }
            guard part < 1_000_000_000 else { throw .invalidArgument }
            return timespec(tv_sec: Int(bitPattern: UInt(seconds)), tv_nsec: Int(part))
        }
        var times = (
            try time(setsAccess, has(arguments, WIRE_FUSE_FATTR_ATIME_NOW_BIT), arguments.atime, arguments.atimensec),
            try time(setsChange, has(arguments, WIRE_FUSE_FATTR_MTIME_NOW_BIT), arguments.mtime, arguments.mtimensec)
        )
        let flags = HostFlags.emptyPath | AT_SYMLINK_NOFOLLOW
        let result = unsafe withUnsafePointer(to: &times) { times in
            unsafe times.withMemoryRebound(to: timespec.self, capacity: 2) { unsafe utimensat(fd, "", $0, flags) }
        }
        if result != 0 { throw .current }
    }
}
