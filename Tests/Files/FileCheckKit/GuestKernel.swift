public import FrontendKit
internal import Glibc
internal import Platform

/// Carries operations out as a guest's kernel does on a FUSE file system that caches nothing: walks paths, checks
/// permissions itself ("default_permissions"), and asks the device for the rest.
///
/// It keeps to what the kernel does, order of checks included, so that an error number may be compared. What it makes
/// known to the device, it forgets at the end of each operation, except what is open.
public struct GuestKernel: FileExecutor, ~Copyable {
    var mount: FileMount
    var open: [[OpenSlot?]]
    private var opened: UInt64 = 0
    /// Nodes that this operation has made known, once for each time.
    private var known: [UInt64] = []
    private var operations: UInt64 = 0

    /// An open file of a client.
    struct OpenSlot {
        var node: UInt64
        var handle: UInt64
        var flags: Int32
        var isDirectory: Bool
        /// It was made without a name, and has got none since.
        var isNameless: Bool
        /// Of its locks.
        var owner: UInt64

        var mayRead: Bool { flags & O_ACCMODE != O_WRONLY }
        var mayWrite: Bool { flags & O_ACCMODE != O_RDONLY }
        var appends: Bool { flags & O_APPEND != 0 }
    }

    /// A node as the last answer about it says.
    struct Node {
        var id: UInt64
        var attributes: FileAttributes

        var type: UInt32 { attributes.mode & S_IFMT }
        var isDirectory: Bool { type == S_IFDIR }
        var isLink: Bool { type == S_IFLNK }
        var isRegular: Bool { type == S_IFREG }
    }

    /// Where a path leads.
    struct Place {
        var directory: Node
        /// Nodes from the root to the directory.
        var trail: [UInt64]
        var name: [UInt8]
        /// Nil when there is nothing of that name.
        var node: Node?
    }

    public init(_ mount: consuming FileMount) {
        self.mount = mount
        open = Array(
            repeating: Array(repeating: nil, count: OperationGenerator.slotCount),
            count: OperationGenerator.actors.count)
    }

    public mutating func perform(_ operation: FileOperation, by actor: FileActor) throws -> FileOutcome {
        mount.client.caller = FileCaller(user: actor.user, group: actor.group, process: UInt32(1000 + actor.index))
        operations += 1
        let outcome: FileOutcome
        do throws(FileError) {
            outcome = try carryOut(operation, actor)
        } catch {
            guard let errno = error.errno else { throw error }
            outcome = .failed(errno.rawValue)
        }
        try forgetAll()
        return outcome
    }

    public mutating func end() throws {
        for actor in open.indices { for slot in open[actor].indices { try closeSlot(actor, slot) } }
        try mount.client.destroy()
        try mount.frontend.stop()
    }

    private mutating func carryOut(_ operation: FileOperation, _ actor: FileActor) throws(FileError) -> FileOutcome {
        switch operation {
        case .linkOpen(let slot, _) where open[actor.index][slot] == nil: return .passed
        case .makeDirectory, .makeNode, .makeSymbolicLink, .link, .linkOpen, .unlink, .removeDirectory, .rename:
            try changeNames(operation, actor)
            return .done
        case .open, .openTemporary, .close: return try openOrClose(operation, actor)
        case .read, .write, .truncate, .truncateOpen, .allocate, .seek, .copy, .synchronize:
            return try useData(operation, actor)
        case .lockFile, .lock, .testLock: return try lock(operation, actor)
        case .setAttribute, .attribute, .attributes, .removeAttribute: return try useAttributes(operation, actor)
        default: return try look(operation, actor)
        }
    }

    // MARK: Nodes

    /// Notes that the device knows of a node once more.
    mutating func note(_ entry: FileEntry) -> Node {
        known.append(entry.node)
        return Node(id: entry.node, attributes: entry.attributes)
    }

    /// Keeps one mention of a node over the end of the operation.
    mutating func retain(_ node: UInt64) {
        if let index = known.lastIndex(of: node) { known.remove(at: index) }
    }

    mutating func forgetLater(_ node: UInt64) { known.append(node) }

    private mutating func forgetAll() throws(FileError) {
        defer { known = [] }
        // Both ways of forgetting, in turn.
        if operations % 2 == 0, known.count > 1 {
            try mount.client.forget(known.prefix(200).map { ($0, 1) })
            for node in known.dropFirst(200) { try mount.client.forget(node) }
        } else {
            for node in known { try mount.client.forget(node) }
        }
    }

    mutating func root() throws(FileError) -> Node {
        Node(id: FileClient.root, attributes: try mount.client.attributes(of: FileClient.root))
    }

    /// Nil where there is nothing of that name.
    mutating func lookUp(_ name: [UInt8], in directory: Node) throws(FileError) -> Node? {
        do throws(FileError) {
            let entry = try mount.client.lookUp(name, in: directory.id)
            // A device may say so by a node number of 0.
            return entry.node == 0 ? nil : note(entry)
        } catch {
            if error.errno == .noEntry { return nil }
            throw error
        }
    }

    // MARK: Paths

    /// Walks a path. Linux: Documentation/filesystems/path-lookup.rst.
    ///
    /// - Parameter follows: a symbolic link at its end is followed.
    mutating func walk(_ path: String, _ actor: FileActor, follows: Bool) throws(FileError) -> Place {
        var rest = path.utf8.split(separator: UInt8(ascii: "/")).map(Array.init)
        var links = 0
        var place = Place(directory: try root(), trail: [FileClient.root], name: [], node: nil)
        place.node = place.directory
        while !rest.isEmpty {
            let name = rest.removeFirst()
            if name == [UInt8(ascii: ".")] {
                guard let node = place.node else { throw .refused(.noEntry) }
                try check(node.isDirectory, ENOTDIR)
                try permit(node, 1, actor)
                continue
            }
            guard let directory = place.node else { throw .refused(.noEntry) }
            try check(directory.isDirectory, ENOTDIR)
            try permit(directory, 1, actor)
            if place.trail.last != directory.id { place.trail.append(directory.id) }
            place.directory = directory
            place.name = name
            place.node = try lookUp(name, in: directory)
            guard let node = place.node, node.isLink, follows || !rest.isEmpty else { continue }
            links += 1
            try check(links <= 40, ELOOP)
            let target = try mount.client.readLink(node.id)
            rest = target.split(separator: UInt8(ascii: "/")).map(Array.init) + rest
            place.node = directory
        }
        return place
    }

    /// What is at a path; it must be there.
    mutating func find(_ path: String, _ actor: FileActor, follows: Bool) throws(FileError) -> Node {
        guard let node = try walk(path, actor, follows: follows).node else { throw .refused(.noEntry) }
        return node
    }

    /// Where a name is to be made.
    mutating func findRoom(_ path: String, _ actor: FileActor) throws(FileError) -> Place {
        let place = try walk(path, actor, follows: false)
        try check(place.node == nil, EEXIST)
        return place
    }

    // MARK: Permissions

    func check(_ isRight: Bool, _ error: Int32) throws(FileError) {
        if !isRight { throw .refused(Errno(rawValue: error)) }
    }

    /// Linux: inode_permission. 4 reads, 2 writes, 1 executes or searches.
    func permit(_ node: Node, _ mask: UInt32, _ actor: FileActor) throws(FileError) {
        let attributes = node.attributes
        if actor.user == 0 {
            let canExecute = node.isDirectory || attributes.mode & 0o111 != 0
            return try check(mask & 1 == 0 || canExecute, EACCES)
        }
        let shift: UInt32 = actor.user == attributes.user ? 6 : actor.group == attributes.group ? 3 : 0
        try check((attributes.mode >> shift) & mask == mask, EACCES)
    }

    func isOwner(_ actor: FileActor, of node: Node) -> Bool { actor.user == 0 || actor.user == node.attributes.user }

    /// Linux: may_create.
    func permitMaking(in directory: Node, _ actor: FileActor) throws(FileError) {
        try permit(directory, 3, actor)
    }

    /// Linux: may_delete.
    func permitRemoving(
        _ node: Node, from directory: Node, asDirectory: Bool, _ actor: FileActor
    ) throws(FileError) {
        try permit(directory, 3, actor)
        let isSticky = directory.attributes.mode & S_ISVTX != 0
        try check(!isSticky || isOwner(actor, of: node) || isOwner(actor, of: directory), EPERM)
        try check(!asDirectory || node.isDirectory, ENOTDIR)
        try check(asDirectory || !node.isDirectory, EISDIR)
    }

    /// Linux: may_linkat, with fs.protected_hardlinks as this machine has it.
    func permitLinking(_ node: Node, _ actor: FileActor) throws(FileError) {
        guard protectsHardLinks, !isOwner(actor, of: node) else { return }
        let mode = node.attributes.mode
        let isSafe = node.isRegular && mode & S_ISUID == 0 && mode & 0o2010 != 0o2010
        try check(isSafe, EPERM)
        do throws(FileError) {
            try permit(node, 6, actor)
        } catch {
            throw .refused(.notPermitted)
        }
    }

    private let protectsHardLinks = readSmallFile("/proc/sys/fs/protected_hardlinks")?.first != "0"

    // MARK: Slots

    mutating func takeSlot(
        _ slot: Int, _ actor: FileActor, _ node: Node, _ file: OpenFile, flags: Int32, isNameless: Bool = false
    ) throws(FileError) {
        try closeSlot(actor.index, slot)
        retain(node.id)
        opened += 1
        open[actor.index][slot] = OpenSlot(
            node: node.id, handle: file.handle, flags: flags, isDirectory: node.isDirectory, isNameless: isNameless,
            owner: opened)
    }

    mutating func closeSlot(_ actor: Int, _ slot: Int) throws(FileError) {
        guard let file = open[actor][slot] else { return }
        open[actor][slot] = nil
        if file.isDirectory {
            try mount.client.releaseDirectory(file.node, file.handle)
        } else {
            do throws(FileError) {
                try mount.client.flush(file.node, file.handle, lockOwner: file.owner)
            } catch {
                // A device need not know of it.
                guard error.errno == .noSuchCall else { throw error }
            }
            try mount.client.release(
                file.node, file.handle, flags: UInt32(bitPattern: file.flags), unlocksFor: file.owner)
        }
        forgetLater(file.node)
    }
}
