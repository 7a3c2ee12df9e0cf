internal import FrontendKit
internal import Glibc
internal import Platform

/// Names, and opening them.
extension GuestKernel {
    mutating func changeNames(_ operation: FileOperation, _ actor: FileActor) throws(FileError) {
        switch operation {
        case .makeDirectory(let path, let mode):
            let place = try findRoom(path, actor)
            try permitMaking(in: place.directory, actor)
            _ = note(
                try mount.client.makeDirectory(
                    place.name, in: place.directory.id, mode: mode & 0o1777 & ~actor.umask, umask: actor.umask))
        case .makeNode(let path, let mode, let major, let minor):
            let place = try findRoom(path, actor)
            try permitMaking(in: place.directory, actor)
            // Whiteouts, 0:0, may be made by anybody.
            let isDevice = mode & S_IFMT == S_IFCHR && (major != 0 || minor != 0)
            try check(!isDevice || actor.user == 0, EPERM)
            let device = (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)
            _ = note(
                try mount.client.makeNode(
                    place.name, in: place.directory.id, mode: mode & ~actor.umask, device: device, umask: actor.umask))
        case .makeSymbolicLink(let path, let target):
            let place = try findRoom(path, actor)
            try permitMaking(in: place.directory, actor)
            _ = note(
                try mount.client.makeSymbolicLink(place.name, to: Array(target.utf8), in: place.directory.id))
        case .link(let path, let new):
            try link(try find(path, actor, follows: false), to: new, actor)
        case .linkOpen(let slot, let new):
            if let file = open[actor.index][slot] { try link(file, slot, to: new, actor) }
        case .unlink(let path): try remove(path, asDirectory: false, actor)
        case .removeDirectory(let path): try remove(path, asDirectory: true, actor)
        case .rename(let path, let new, let flags): try rename(path, to: new, .init(rawValue: flags), actor)
        default: preconditionFailure("that changes no name")
        }
    }

    private mutating func link(_ node: Node, to path: String, _ actor: FileActor) throws(FileError) {
        let place = try findRoom(path, actor)
        try permitLinking(node, actor)
        try permitMaking(in: place.directory, actor)
        try check(!node.isDirectory, EPERM)
        _ = note(try mount.client.link(node.id, as: place.name, in: place.directory.id))
    }

    private mutating func link(
        _ file: OpenSlot, _ slot: Int, to path: String, _ actor: FileActor
    ) throws(FileError) {
        let node = Node(id: file.node, attributes: try mount.client.attributes(of: file.node))
        let place = try findRoom(path, actor)
        try permitLinking(node, actor)
        try permitMaking(in: place.directory, actor)
        try check(!node.isDirectory, EPERM)
        try check(node.attributes.links > 0 || file.isNameless, ENOENT)
        _ = note(try mount.client.link(node.id, as: place.name, in: place.directory.id))
        open[actor.index][slot]?.isNameless = false
    }

    private mutating func remove(_ path: String, asDirectory: Bool, _ actor: FileActor) throws(FileError) {
        let place = try walk(path, actor, follows: false)
        guard let node = place.node else { throw .refused(.noEntry) }
        try permitRemoving(node, from: place.directory, asDirectory: asDirectory, actor)
        if asDirectory {
            try mount.client.removeDirectory(place.name, in: place.directory.id)
        } else {
            try mount.client.unlink(place.name, in: place.directory.id)
        }
    }

    /// Linux: do_renameat2 and vfs_rename.
    private mutating func rename(
        _ path: String, to new: String, _ flags: FileClient.RenameFlags, _ actor: FileActor
    ) throws(FileError) {
        let from = try walkToParent(path, actor)
        let to = try walkToParent(new, actor)
        guard let source = try lookUp(from.name, in: from.directory) else { throw .refused(.noEntry) }
        let target = try lookUp(to.name, in: to.directory)
        try check(!flags.contains(.noReplace) || target == nil, EEXIST)
        try check(!flags.contains(.exchange) || target != nil, ENOENT)
        try check(!to.trail.contains(source.id), EINVAL)
        if let target, from.trail.contains(target.id) {
            throw .refused(Errno(rawValue: flags.contains(.exchange) ? EINVAL : ENOTEMPTY))
        }
        if source.id == target?.id { return }
        try permitRemoving(source, from: from.directory, asDirectory: source.isDirectory, actor)
        if let target {
            let asDirectory = flags.contains(.exchange) ? target.isDirectory : source.isDirectory
            try permitRemoving(target, from: to.directory, asDirectory: asDirectory, actor)
        } else {
            try permitMaking(in: to.directory, actor)
        }
        if from.directory.id != to.directory.id {
            // Their entry ".." changes.
            if source.isDirectory { try permit(source, 2, actor) }
            if flags.contains(.exchange), let target, target.isDirectory { try permit(target, 2, actor) }
        }
        try mount.client.rename(from.name, in: from.directory.id, to: to.name, in: to.directory.id, flags: flags)
    }

    /// Walks all but the last name.
    private mutating func walkToParent(_ path: String, _ actor: FileActor) throws(FileError) -> Place {
        let names = path.split(separator: "/")
        let parent = names.dropLast().joined(separator: "/")
        let start = try walk(parent, actor, follows: true)
        guard let directory = start.node else { throw .refused(.noEntry) }
        try check(directory.isDirectory, ENOTDIR)
        try permit(directory, 1, actor)
        let trail = start.trail.last == directory.id ? start.trail : start.trail + [directory.id]
        guard let name = names.last else { preconditionFailure("a path has a name") }
        return Place(directory: directory, trail: trail, name: Array(name.utf8), node: nil)
    }

    // MARK: Opening

    mutating func openOrClose(_ operation: FileOperation, _ actor: FileActor) throws(FileError) -> FileOutcome {
        switch operation {
        case .open(let slot, let path, let flags, let mode): return try open(slot, path, flags, mode, actor)
        case .openTemporary(let slot, let path, let flags, let mode):
            let directory = try find(path, actor, follows: true)
            try check(directory.isDirectory, ENOTDIR)
            try permit(directory, 3, actor)
            let all = flags | 0o20200000
            let made = try mount.client.makeTemporaryFile(
                in: directory.id, flags: UInt32(bitPattern: all), mode: S_IFREG | mode & ~actor.umask,
                umask: actor.umask)
            try takeSlot(slot, actor, note(made.entry), made.open, flags: flags, isNameless: true)
        case .close(let slot): try closeSlot(actor.index, slot)
        default: preconditionFailure("that opens nothing")
        }
        return .done
    }

    /// Linux: path_openat.
    private mutating func open(
        _ slot: Int, _ path: String, _ flags: Int32, _ mode: UInt32, _ actor: FileActor
    ) throws(FileError) -> FileOutcome {
        let isExclusive = flags & O_CREAT != 0 && flags & O_EXCL != 0
        let place = try walk(path, actor, follows: flags & O_NOFOLLOW == 0 && !isExclusive)
        guard let node = place.node else {
            try check(flags & O_CREAT != 0, ENOENT)
            try permitMaking(in: place.directory, actor)
            let made = try mount.client.create(
                place.name, in: place.directory.id, flags: UInt32(bitPattern: flags),
                mode: S_IFREG | mode & ~actor.umask, umask: actor.umask)
            try takeSlot(slot, actor, note(made.entry), made.open, flags: flags)
            return .done
        }
        if !isExclusive, !node.isRegular, !node.isDirectory, !node.isLink { return .passed }
        try check(!isExclusive, EEXIST)
        try check(flags & O_CREAT == 0 || !node.isDirectory, EISDIR)
        try check(flags & O_DIRECTORY == 0 || node.isDirectory, ENOTDIR)
        try check(!node.isLink, ELOOP)
        let writes = flags & O_ACCMODE != O_RDONLY || flags & O_TRUNC != 0
        try check(!writes || !node.isDirectory, EISDIR)
        let reads = flags & O_ACCMODE != O_WRONLY
        try permit(node, (reads ? 4 : 0) | (writes ? 2 : 0), actor)
        let sent = UInt32(bitPattern: flags & ~(O_CREAT | O_EXCL))
        let file =
            node.isDirectory
            ? try mount.client.openDirectory(node.id, flags: sent)
            : try mount.client.open(
                node.id, flags: sent, killsPrivileges: flags & O_TRUNC != 0 && actor.user != 0)
        try takeSlot(slot, actor, node, file, flags: flags)
        return .done
    }
}
