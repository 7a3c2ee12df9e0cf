internal import FrontendKit
internal import Glibc
internal import Platform

/// What is in files, and their locks.
extension GuestKernel {
    mutating func useData(_ operation: FileOperation, _ actor: FileActor) throws(FileError) -> FileOutcome {
        if case .truncate(let path, let size) = operation {
            let node = try find(path, actor, follows: true)
            try check(!node.isDirectory, EISDIR)
            try check(node.isRegular, EINVAL)
            try permit(node, 2, actor)
            _ = try mount.client.change(node.id, .init(size: size, killsPrivileges: actor.user != 0))
            return .done
        }
        guard let slot = operation.slot, let file = open[actor.index][slot] else { return .passed }
        switch operation {
        case .read(_, let offset, let count): return .bytes(try read(file, offset, count))
        case .write(_, let offset, let count, let seed):
            try check(file.mayWrite, EBADF)
            return .done([try write(file, offset, patterned(count, seed: seed), actor)])
        case .truncateOpen(_, let size):
            try check(file.mayWrite && !file.isDirectory, EINVAL)
            _ = try mount.client.change(
                file.node, .init(size: size, handle: file.handle, killsPrivileges: actor.user != 0))
        case .allocate(_, let mode, let offset, let count):
            if try keepsPrivileges(file, actor) { return .passed }
            // Linux: vfs_fallocate.
            try check(count > 0, EINVAL)
            try check(mode & 2 == 0 || mode & 1 != 0, EOPNOTSUPP)
            try check(file.mayWrite, EBADF)
            try mount.client.allocate(file.node, file.handle, at: offset, count: count, mode: mode)
        case .seek(_, let offset, let whence):
            if file.isDirectory { return .passed }
            return .done([try mount.client.seek(file.node, file.handle, from: offset, whence: whence)])
        case .copy(_, let offset, let target, let newOffset, let count):
            guard let to = open[actor.index][target] else { return .passed }
            if try keepsPrivileges(to, actor) { return .passed }
            return .done([try copy(file, offset, to, newOffset, count)])
        case .synchronize(_, let dataOnly):
            if file.isDirectory {
                try mount.client.synchronizeDirectory(file.node, file.handle, dataOnly: dataOnly)
            } else {
                try mount.client.synchronize(file.node, file.handle, dataOnly: dataOnly)
            }
        default: preconditionFailure("that uses no data")
        }
        return .done
    }

    private mutating func read(_ file: OpenSlot, _ offset: UInt64, _ count: Int) throws(FileError) -> [UInt8] {
        try check(file.mayRead, EBADF)
        try check(!file.isDirectory, EISDIR)
        guard count > 0 else { return [] }
        return try mount.client.read(
            file.node, file.handle, at: offset, count: count, flags: UInt32(bitPattern: file.flags))
    }

    /// In parts that the device takes.
    private mutating func write(
        _ file: OpenSlot, _ offset: UInt64, _ bytes: [UInt8], _ actor: FileActor
    ) throws(FileError) -> UInt64 {
        guard !bytes.isEmpty else { return 0 }
        let most = mount.client.limits?.maximumWrite ?? 4096
        let start = file.appends ? try mount.client.attributes(of: file.node).size : offset
        var done = 0
        while done < bytes.count {
            let part = Array(bytes[done..<min(bytes.count, done + most)])
            let written = try mount.client.write(
                part, file.node, file.handle, at: start + UInt64(done), flags: UInt32(bitPattern: file.flags),
                killsPrivileges: actor.user != 0)
            done += written
            if written < part.count { break }
        }
        return UInt64(done)
    }

    /// Linux: vfs_copy_file_range.
    private mutating func copy(
        _ file: OpenSlot, _ offset: UInt64, _ to: OpenSlot, _ newOffset: UInt64, _ count: UInt64
    ) throws(FileError) -> UInt64 {
        try check(!file.isDirectory && !to.isDirectory, EISDIR)
        try check(file.mayRead && to.mayWrite && !to.appends, EBADF)
        let size = try mount.client.attributes(of: file.node).size
        let possible = offset >= size ? 0 : min(count, size - offset)
        if file.node == to.node {
            try check(newOffset + possible <= offset || newOffset >= offset + possible, EINVAL)
        }
        guard possible > 0 else { return 0 }
        return UInt64(
            try mount.client.copy(
                possible, from: .init(node: file.node, handle: file.handle, offset: offset),
                to: .init(node: to.node, handle: to.handle, offset: newOffset)))
    }

    /// FUSE has no way to say of these calls that set-user-ID bits are to go.
    private mutating func keepsPrivileges(_ file: OpenSlot, _ actor: FileActor) throws(FileError) -> Bool {
        guard actor.user != 0 else { return false }
        return try mount.client.attributes(of: file.node).mode & (S_ISUID | S_ISGID) != 0
    }

    // MARK: Locks

    mutating func lock(_ operation: FileOperation, _ actor: FileActor) throws(FileError) -> FileOutcome {
        guard let slot = operation.slot, let file = open[actor.index][slot], !file.isDirectory else { return .passed }
        let process = UInt32(1000 + actor.index)
        switch operation {
        case .lockFile(_, let kind):
            try mount.client.setLock(
                .init(kind.wire, owner: file.owner, process: process, isOfFile: true), file.node, file.handle)
        case .lock(_, let kind, let range):
            try check(kind != .shared || file.mayRead, EBADF)
            try check(kind != .exclusive || file.mayWrite, EBADF)
            try mount.client.setLock(
                .init(kind.wire, range, owner: file.owner, process: process), file.node, file.handle)
        case .testLock(_, let kind, let range):
            let wanted = FileClient.Lock(kind.wire, range, owner: file.owner, process: process)
            guard let found = try mount.client.conflict(with: wanted, file.node, file.handle) else { return .done }
            return .done([UInt64(found.kind.rawValue), found.range.lowerBound, found.range.upperBound])
        default: preconditionFailure("that is no lock")
        }
        return .done
    }
}

extension FileLockKind {
    fileprivate var wire: FileClient.Lock.Kind {
        switch self {
        case .shared: .read
        case .exclusive: .write
        case .none: .none
        }
    }
}
