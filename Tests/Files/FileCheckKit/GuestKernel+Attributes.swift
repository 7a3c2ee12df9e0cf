internal import FrontendKit
internal import Glibc
internal import Platform

/// What belongs to nodes beside their data, and looking at them.
extension GuestKernel {
    mutating func look(_ operation: FileOperation, _ actor: FileActor) throws(FileError) -> FileOutcome {
        switch operation {
        case .readLink(let path):
            let node = try find(path, actor, follows: false)
            try check(node.isLink, EINVAL)
            return .bytes(try mount.client.readLink(node.id))
        case .status(let path): return .done(values(try find(path, actor, follows: false).attributes))
        case .statusOpen(let slot):
            guard let file = open[actor.index][slot] else { return .passed }
            let handle = file.isDirectory ? nil : Optional(file.handle)
            return .done(values(try mount.client.attributes(of: file.node, handle: handle)))
        case .changeMode(let path, let mode):
            try changeMode(try find(path, actor, follows: true), mode, actor)
        case .changeModeOpen(let slot, let mode):
            guard let file = open[actor.index][slot] else { return .passed }
            let node = Node(id: file.node, attributes: try mount.client.attributes(of: file.node))
            try changeMode(node, mode, actor)
        case .changeOwner(let path, let user, let group):
            try changeOwner(try find(path, actor, follows: false), user, group, actor)
        case .setTimes(let path, let accessed, let modified):
            return try setTimes(path, accessed, modified, actor)
        case .list(let path, let part): return .names(try list(path, part, actor))
        case .synchronizeDirectory(let path):
            let node = try openableDirectory(path, actor)
            let file = try mount.client.openDirectory(node.id)
            try mount.client.synchronizeDirectory(node.id, file.handle)
            try mount.client.releaseDirectory(node.id, file.handle)
        case .synchronizeAll: try mount.client.synchronizeFileSystem()
        case .access(let path, let mask): try permit(try find(path, actor, follows: true), mask, actor)
        case .fileSystem:
            let status = try mount.client.fileSystemStatus()
            return .done([status.blocks, UInt64(status.blockSize), UInt64(status.nameLength)])
        default: preconditionFailure("that is done elsewhere")
        }
        return .done
    }

    /// Linux: setattr_prepare.
    private mutating func changeMode(_ node: Node, _ mode: UInt32, _ actor: FileActor) throws(FileError) {
        try check(isOwner(actor, of: node), EPERM)
        let keepsGroup = actor.user == 0 || actor.group == node.attributes.group
        let permissions = mode & 0o7777 & (keepsGroup ? ~0 : ~S_ISGID)
        _ = try mount.client.change(node.id, .init(mode: node.type | permissions))
    }

    private mutating func changeOwner(
        _ node: Node, _ user: UInt32?, _ group: UInt32?, _ actor: FileActor
    ) throws(FileError) {
        if actor.user != 0 {
            let isOwner = node.attributes.user == actor.user
            if let user { try check(isOwner && user == actor.user, EPERM) }
            if let group { try check(isOwner && (group == actor.group || group == node.attributes.group), EPERM) }
        }
        _ = try mount.client.change(node.id, .init(user: user, group: group))
    }

    private mutating func setTimes(
        _ path: String, _ accessed: TimeChange, _ modified: TimeChange, _ actor: FileActor
    ) throws(FileError) -> FileOutcome {
        if accessed == .stays && modified == .stays { return .done }
        let node = try find(path, actor, follows: false)
        if accessed == .now && modified == .now {
            if !isOwner(actor, of: node) { try permit(node, 2, actor) }
        } else {
            try check(isOwner(actor, of: node), EPERM)
        }
        let found = try mount.client.change(
            node.id, .init(accessed: accessed.moment, modified: modified.moment))
        var result = comparable(found.modified.seconds, found.modified.nanoseconds)
        if case .at = accessed { result += comparable(found.accessed.seconds, found.accessed.nanoseconds) }
        return .done(result)
    }

    private mutating func openableDirectory(_ path: String, _ actor: FileActor) throws(FileError) -> Node {
        let node = try find(path, actor, follows: true)
        try check(node.isDirectory, ENOTDIR)
        try permit(node, 4, actor)
        return node
    }

    /// With READDIR and READDIRPLUS in turn.
    private mutating func list(_ path: String, _ part: Int, _ actor: FileActor) throws(FileError) -> [String] {
        let node = try openableDirectory(path, actor)
        let withNodes = part > 512 && mount.client.limits?.flags.contains(.readDirectoryPlus) == true
        let entries = try mount.client.listDirectory(node.id, part: part, withNodes: withNodes)
        return entries.map { "\(String(decoding: $0.name, as: UTF8.self)) \($0.type)" }.sorted()
    }

    private func values(_ attributes: FileAttributes) -> [UInt64] {
        let size = attributes.mode & S_IFMT == S_IFDIR ? 0 : attributes.size
        let device = attributes.device
        let (major, minor) = ((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00))
        return [UInt64(attributes.mode), UInt64(attributes.links), UInt64(attributes.user)]
            + [UInt64(attributes.group), size, UInt64(major), UInt64(minor)]
            + comparable(attributes.modified.seconds, attributes.modified.nanoseconds)
    }

    // MARK: Extended attributes

    mutating func useAttributes(_ operation: FileOperation, _ actor: FileActor) throws(FileError) -> FileOutcome {
        switch operation {
        case .setAttribute(let path, let name, let count, let seed, let flags):
            let node = try find(path, actor, follows: false)
            try permitAttribute(node, name, writes: true, actor)
            try mount.client.setExtendedAttribute(
                node.id, Array(name.utf8), patterned(count, seed: seed), flags: flags)
            return .done
        case .attribute(let path, let name):
            let node = try find(path, actor, follows: false)
            try permitAttribute(node, name, writes: false, actor)
            return .bytes(try mount.client.extendedAttribute(node.id, Array(name.utf8)))
        case .attributes(let path):
            let node = try find(path, actor, follows: false)
            let names = try mount.client.extendedAttributes(node.id)
            return .names(names.map { String(decoding: $0, as: UTF8.self) }.sorted())
        case .removeAttribute(let path, let name):
            let node = try find(path, actor, follows: false)
            try permitAttribute(node, name, writes: true, actor)
            try mount.client.removeExtendedAttribute(node.id, Array(name.utf8))
            return .done
        default: preconditionFailure("that is no extended attribute")
        }
    }

    /// Linux: xattr_permission.
    private func permitAttribute(
        _ node: Node, _ name: String, writes: Bool, _ actor: FileActor
    ) throws(FileError) {
        if name.hasPrefix("user.") {
            try check(node.isRegular || node.isDirectory, writes ? EPERM : ENODATA)
            let isSticky = node.isDirectory && node.attributes.mode & S_ISVTX != 0
            try check(!isSticky || !writes || isOwner(actor, of: node), EPERM)
        }
        try permit(node, writes ? 2 : 4, actor)
    }
}

extension TimeChange {
    fileprivate var moment: FileClient.Change.Moment? {
        switch self {
        case .stays: nil
        case .now: .now
        case .at(let seconds, let nanoseconds): .at(FileTime(seconds: seconds, nanoseconds: nanoseconds))
        }
    }
}
