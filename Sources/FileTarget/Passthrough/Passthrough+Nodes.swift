internal import CLinux
internal import CWire
internal import Glibc
internal import Platform
internal import Synchronization

// MARK: - Descriptors of nodes

extension Passthrough {
    /// The O_PATH descriptor of a node, until `drop`.
    ///
    /// - Throws: ESTALE when the driver does not know the node, or it is no more.
    mutating func hold(_ node: UInt64) throws(Errno) -> HeldNode {
        if node == UInt64(NodeTable.rootSlot) { return HeldNode(fd: session.root.number, source: .session) }
        let known: NodeIdentity
        let file: UInt32?
        do {
            let found = session.withNodes { nodes -> (NodeIdentity, UInt32?)? in
                guard let slot = nodes.slot(of: node) else { return nil }
                return (nodes.identity(of: slot), nodes.file(of: slot))
            }
            guard let found else { throw Errno(rawValue: ESTALE) }
            (known, file) = found
        }
        if let file {
            guard let fd = session.files.take(session.files.handle(of: file), .node) else {
                throw Errno(rawValue: ESTALE)
            }
            return HeldNode(fd: fd, source: .table(file))
        }
        if let place = cache.pin(node) { return HeldNode(fd: cache.fd(place), source: .cache(place)) }
        let fd = try openHandle(known, HostFlags.pathOnly | O_NOFOLLOW)
        return keep(node, fd)
    }

    /// Puts an O_PATH descriptor into the cache.
    private mutating func keep(_ node: UInt64, _ fd: Int32) -> HeldNode {
        if let place = cache.add(node, fd) { return HeldNode(fd: fd, source: .cache(place)) }
        return HeldNode(fd: fd, source: .own)
    }

    mutating func drop(_ held: HeldNode) {
        switch held.source {
        case .session: break
        case .cache(let place): cache.unpin(place)
        case .table(let slot): session.giveBack(slot)
        case .own: close(held.fd)
        }
    }

    /// Opens a node that has a handle.
    private mutating func openHandle(_ node: NodeIdentity, _ flags: Int32) throws(Errno) -> Int32 {
        credentials.becomeServer()
        var mountSlot: UInt32?
        var mount = session.root.number
        if node.mount != 0, let own = session.mountDirectory(node.mount) {
            mount = own
        } else if node.mount != 0 {
            guard let slot = session.mountFile(node.mount),
                let fd = session.files.take(session.files.handle(of: slot), .mount)
            else { throw Errno(rawValue: ESTALE) }
            (mount, mountSlot) = (fd, slot)
        }
        defer { if let mountSlot { session.giveBack(mountSlot) } }
        let fd = unsafe withUnsafeBytes(of: node.handle) { bytes in
            unsafe clinux_open_by_handle(
                mount, bytes.baseAddress, UInt32(node.handleCount), node.handleType, flags | O_CLOEXEC)
        }
        if fd < 0 { throw .current }
        return fd
    }

    /// Opens a regular file or a directory for real. Nothing else is ever opened: a device would do something, a FIFO
    /// wait for somebody.
    ///
    /// - Parameter flags: of open, without O_CREAT.
    /// - Throws: ESTALE; ENXIO for special files; the host's error.
    mutating func reopen(_ node: UInt64, _ flags: Int32) throws(Errno) -> Int32 {
        credentials.becomeServer()
        let flags = flags | O_NOFOLLOW | O_CLOEXEC
        if node == UInt64(NodeTable.rootSlot) {
            let fd = unsafe clinux_openat(session.root.number, ".", flags & ~O_NOFOLLOW, 0, 0)
            if fd < 0 { throw .current }
            return fd
        }
        let found = session.withNodes { nodes -> (NodeIdentity, UInt32?)? in
            guard let slot = nodes.slot(of: node) else { return nil }
            return (nodes.identity(of: slot), nodes.file(of: slot))
        }
        guard let (known, file) = found else { throw Errno(rawValue: ESTALE) }
        switch UInt32(known.type) << 12 {
        case S_IFREG, S_IFDIR: break
        case S_IFLNK: throw Errno(rawValue: ELOOP)
        default: throw Errno(rawValue: ENXIO)
        }
        guard let file else { return try openHandle(known, flags) }
        guard let fd = session.files.take(session.files.handle(of: file), .node) else {
            throw Errno(rawValue: ESTALE)
        }
        defer { session.giveBack(file) }
        return try reopen(descriptor: fd, flags)
    }

    /// Opens what an O_PATH descriptor stands for, over /proc/self/fd: the one magic link that is ever followed, and
    /// the server made it.
    ///
    /// - Throws: EOPNOTSUPP where there is no /proc.
    func reopen(descriptor: Int32, _ flags: Int32) throws(Errno) -> Int32 {
        guard session.processFiles >= 0 else { throw .notSupported }
        let fd = unsafe clinux_openat(
            session.processFiles, descriptorName(descriptor), flags & ~O_NOFOLLOW | O_CLOEXEC, 0, 0)
        if fd < 0 { throw .current }
        return fd
    }

    /// The number of a descriptor as text, good until the next call of this.
    func descriptorName(_ descriptor: Int32) -> UnsafePointer<CChar> {
        unsafe descriptorPath(descriptor) + Self.processPath.utf8CodeUnitCount
    }

    /// "/proc/self/fd/NUMBER": what older kernels reach in no other way. It names a file that the server holds.
    func descriptorPath(_ descriptor: Int32) -> UnsafePointer<CChar> {
        let path = unsafe pathScratch
        let prefix = Self.processPath
        for index in 0..<prefix.utf8CodeUnitCount {
            unsafe path[index] = CChar(bitPattern: prefix.utf8Start[index])
        }
        var digits = 1
        var rest = descriptor
        while rest >= 10 {
            rest /= 10
            digits += 1
        }
        rest = descriptor
        let start = unsafe path + prefix.utf8CodeUnitCount
        unsafe start[digits] = 0
        for index in stride(from: digits - 1, through: 0, by: -1) {
            unsafe start[index] = CChar(48 + rest % 10)
            rest /= 10
        }
        return unsafe UnsafePointer(path)
    }

    private static var processPath: StaticString { "/proc/self/fd/" }
}

// MARK: - Names become nodes

extension Passthrough {
    /// What a name was found to stand for.
    struct FoundNode {
        var node: UInt64
        var status: statx
        var isSubmount: Bool
    }

    /// Finds a name in a directory, and counts a lookup of its node.
    ///
    /// - Parameters:
    ///   - parent: the directory's node id: roots of other mounts are told from it.
    ///   - directory: its descriptor.
    mutating func find(_ parent: UInt64, _ directory: Int32, _ name: UnsafePointer<CChar>) throws(Errno) -> FoundNode {
        credentials.becomeServer()
        var status = statx()
        if let node = unsafe findKnown(directory, name, &status) {
            return FoundNode(node: node, status: status, isSubmount: isSubmount(parent, node, status))
        }
        // Itself, whatever it is; one component, so that nothing is followed.
        let flags = HostFlags.pathOnly | O_NOFOLLOW | O_CLOEXEC
        let resolve = HostFlags.resolve
        let fd = unsafe clinux_openat(directory, name, flags, 0, resolve)
        if fd < 0 { throw .current }
        return try take(parent, fd)
    }

    /// A node that is known already, by two looks at its name that agree. One that was exchanged in between is found
    /// the long way.
    private func findKnown(_ directory: Int32, _ name: UnsafePointer<CChar>, _ status: inout statx) -> UInt64? {
        var identity = NodeIdentity()
        if session.hasHandles {
            guard unsafe readHandle(directory, name, 0, &identity) else { return nil }
        }
        let flags = AT_SYMLINK_NOFOLLOW | HostFlags.noAutomount
        guard unsafe clinux_statx(directory, name, flags, HostFlags.status, &status) == 0 else { return nil }
        if identity.handleCount == 0 {
            guard let mount = session.mount(status.stx_mnt_id) else { return nil }
            identity.mount = mount
            identity.device = clinux_make_device(status.stx_dev_major, status.stx_dev_minor)
            identity.inode = status.stx_ino
        }
        let (inode, type, effect) = (status.stx_ino, UInt8(status.stx_mode >> 12), effect)
        return session.withNodes { nodes in
            guard let slot = nodes.find(identity), nodes.inode(of: slot) == inode, nodes.type(of: slot) == type else {
                return nil
            }
            nodes.addLookup(slot, effect)
            return nodes.identifier(of: slot)
        }
    }

    /// The handle of a name, or of a descriptor.
    ///
    /// - Returns: false when there is none that is kept, or its mount is not known.
    private func readHandle(
        _ directory: Int32, _ name: UnsafePointer<CChar>, _ flags: Int32, _ identity: inout NodeIdentity
    ) -> Bool {
        var handle = clinux_file_handle()
        var number: Int32 = 0
        guard unsafe clinux_name_to_handle(directory, name, flags, &handle, &number) == 0,
            handle.byte_count <= UInt32(WIRE_SHARE_HANDLE_BYTES), handle.byte_count > 0,
            let mount = session.mount(UInt64(UInt32(bitPattern: number)))
        else { return false }
        identity.mount = mount
        identity.handleType = handle.type
        identity.handleCount = UInt8(handle.byte_count)
        unsafe withUnsafeMutableBytes(of: &identity.handle) { to in
            unsafe withUnsafeBytes(of: &handle.bytes) { from in
                unsafe to.baseAddress!.copyMemory(from: from.baseAddress!, byteCount: Int(handle.byte_count))
            }
        }
        return true
    }

    /// Makes the file of an O_PATH descriptor a node, or finds that it is one, and counts a lookup. The descriptor is
    /// this function's.
    mutating func take(_ parent: UInt64, _ fd: Int32) throws(Errno) -> FoundNode {
        var status = statx()
        guard unsafe clinux_statx(fd, "", HostFlags.emptyPath, HostFlags.status, &status) == 0 else {
            let error = Errno.current
            close(fd)
            throw error
        }
        let (number, hasHandle): (UInt64, Bool)
        do throws(Errno) {
            (number, hasHandle) = try node(of: fd, status, in: parent)
        } catch {
            close(fd)
            throw error
        }
        // Of a node with a handle it is worth keeping: it will be used soon.
        if hasHandle { drop(keep(number, fd)) } else { close(fd) }
        return FoundNode(node: number, status: status, isSubmount: isSubmount(parent, number, status))
    }

    /// The same for a file that is open for real, which stays the caller's.
    mutating func takeWithoutKeeping(_ parent: UInt64, _ fd: Int32) throws(Errno) -> FoundNode {
        var status = statx()
        guard unsafe clinux_statx(fd, "", HostFlags.emptyPath, HostFlags.status, &status) == 0 else { throw .current }
        let (number, _) = try node(of: fd, status, in: parent, isReal: true)
        return FoundNode(node: number, status: status, isSubmount: false)
    }

    private mutating func node(
        of fd: Int32, _ status: statx, in parent: UInt64, isReal: Bool = false
    ) throws(Errno) -> (UInt64, hasHandle: Bool) {
        var identity = NodeIdentity()
        if session.mount(status.stx_mnt_id) == nil { try meetMount(parent, fd, status) }
        let hasHandle =
            unsafe session.hasHandles && readHandle(fd, "", HostFlags.emptyPath, &identity)
        identity.device = clinux_make_device(status.stx_dev_major, status.stx_dev_minor)
        identity.inode = status.stx_ino
        identity.type = UInt8(status.stx_mode >> 12)
        if !hasHandle {
            if session.description.fileHandles == .required { throw .notSupported }
            identity.handleCount = 0
            identity.mount = session.mount(status.stx_mnt_id) ?? .max
        }
        let effect = effect
        let known = session.withNodes { nodes -> UInt64? in
            if let slot = nodes.find(identity) {
                nodes.addLookup(slot, effect)
                return nodes.identifier(of: slot)
            }
            if !hasHandle { return nil }
            return nodes.insert(identity, effect).map { nodes.identifier(of: $0) } ?? 0
        }
        if let known {
            if known == 0 { throw Errno(rawValue: ENFILE) }
            return (known, hasHandle)
        }
        return (try addWithDescriptor(identity, fd, isReal: isReal), false)
    }

    /// A node without a handle lives as long as its descriptor.
    private func addWithDescriptor(_ identity: NodeIdentity, _ fd: Int32, isReal: Bool) throws(Errno) -> UInt64 {
        // One that is open for real would keep the file open, for writing, too.
        let copy =
            if isReal, session.processFiles >= 0 {
                try reopen(descriptor: fd, HostFlags.pathOnly)
            } else {
                try duplicateDescriptor(fd)
            }
        let handle = try session.addFile(copy, .node, node: 0)
        let (file, effect) = (UInt32(truncatingIfNeeded: handle), effect)
        let (node, isNew) = session.withNodes { nodes -> (UInt64, Bool) in
            // Another loop may have been faster.
            if let slot = nodes.find(identity) {
                nodes.addLookup(slot, effect)
                return (nodes.identifier(of: slot), false)
            }
            return (nodes.insert(identity, file: file, effect).map { nodes.identifier(of: $0) } ?? 0, true)
        }
        if !isNew || node == 0 { session.releaseFile(slot: file) }
        if node == 0 { throw Errno(rawValue: ENFILE) }
        return node
    }

    /// Finds out which mount it is whose root was met: one that workers before know, or another, which is remembered
    /// with a directory on it that its handles are opened at.
    private mutating func meetMount(_ parent: UInt64, _ fd: Int32, _ status: statx) throws(Errno) {
        guard session.hasHandles, UInt32(status.stx_mode) & S_IFMT == S_IFDIR,
            status.stx_attributes & HostFlags.mountRoot != 0, let identity = mountIdentity(parent, fd, status)
        else { return }
        let number = status.stx_mnt_id
        let real = unsafe clinux_openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0)
        guard real >= 0, !session.recognizeMount(identity, number: number, real) else { return }
        let handle = try session.addFile(real, .mount, node: 0)
        let file = UInt32(truncatingIfNeeded: handle)
        let place = session.addMount(identity, number: number, file: file)
        if place == nil || session.mountFile(place!) != file { session.releaseFile(slot: file) }
    }

    private func mountIdentity(_ parent: UInt64, _ fd: Int32, _ status: statx) -> MountIdentity? {
        var information = statvfs()
        guard unsafe fstatvfs(fd, &information) == 0 else { return nil }
        var above = (mount: UInt32(0), inode: session.rootInode)
        if parent != UInt64(NodeTable.rootSlot) {
            let found = session.withNodes { nodes in nodes.slot(of: parent).map { nodes.identity(of: $0) } }
            guard let found else { return nil }
            above = (found.mount, found.inode)
        }
        return MountIdentity(
            parentMount: above.mount, parentInode: above.inode,
            device: clinux_make_device(status.stx_dev_major, status.stx_dev_minor), inode: status.stx_ino,
            flags: UInt64(information.f_flag))
    }

    private func isSubmount(_ parent: UInt64, _ node: UInt64, _ status: statx) -> Bool {
        guard session.description.announcesSubmounts, UInt32(status.stx_mode) & S_IFMT == S_IFDIR else { return false }
        let device = clinux_make_device(status.stx_dev_major, status.stx_dev_minor)
        if parent == UInt64(NodeTable.rootSlot) {
            return device != session.rootDevice || status.stx_mnt_id != session.rootMount
        }
        return session.withNodes { nodes in
            guard let above = nodes.slot(of: parent), let slot = nodes.slot(of: node) else { return false }
            let (a, b) = (nodes.identity(of: above), nodes.identity(of: slot))
            return a.device != device || a.mount != b.mount
        }
    }
}

// MARK: - LOOKUP, FORGET

extension Passthrough {
    mutating func lookUp(_ name: FuseName, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        defer { drop(directory) }
        return told(entry(unsafe try find(request.node, directory.fd, name.bytes)))
    }

    func entry(_ found: borrowing FoundNode) -> wire_fuse_entry_out {
        var entry = wire_fuse_entry_out()
        entry.nodeid = found.node
        let seconds = session.description.cache.seconds
        entry.entry_valid = seconds
        entry.attr_valid = seconds
        entry.attr = attributes(found.status)
        if found.isSubmount { entry.attr.flags |= 1 << UInt32(WIRE_FUSE_ATTR_SUBMOUNT_BIT) }
        return entry
    }

    mutating func forget(_ node: UInt64, _ count: UInt64) -> FileResult {
        if effect.place == 0 || session.nodes.effects.word(effect.place) == 0 { forgetOne(node, count, says: 1) }
        return .silent
    }

    mutating func batchForget(_ bytes: FuseBytes, _ count: Int) -> FileResult {
        let done = effect.place == 0 ? 0 : session.nodes.effects.word(effect.place)
        for index in min(Int(clamping: done), count)..<count {
            let one = unsafe (bytes.base + index * MemoryLayout<wire_fuse_forget_one>.size)
                .loadUnaligned(as: wire_fuse_forget_one.self)
            forgetOne(one.nodeid, one.nlookup, says: UInt64(index + 1))
        }
        return .silent
    }

    /// - Parameter word: what the request's effect says then.
    func forgetOne(_ node: UInt64, _ count: UInt64, says word: UInt64 = 0) {
        let effect = effect
        let forgotten = session.withNodes { nodes in
            guard let slot = nodes.slot(of: node) else {
                nodes.effects.setWord(effect.place, word)
                return NodeTable.Forgotten.kept
            }
            return nodes.forget(slot, count, effect, says: word)
        }
        guard case .removed(let file) = forgotten else { return }
        session.forgottenCount.add(1, ordering: .relaxed)
        if let file { session.releaseFile(slot: file) }
    }
}
