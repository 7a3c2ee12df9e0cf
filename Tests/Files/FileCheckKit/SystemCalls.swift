internal import CFileCalls
internal import Glibc
public import Platform

/// Carries operations out by system calls, under a directory: of the kernel's own file system, or of one that is
/// mounted. One thread has it, which becomes each client in turn.
public struct SystemCalls: FileExecutor, ~Copyable {
    private let root: OwnedFD
    private var open: [[OpenSlot?]]

    private struct OpenSlot {
        var file: Int32
        var isDirectory: Bool
    }

    /// - Parameter path: of a directory. Needs root.
    public init(_ path: String) throws(SystemError) {
        let number = unsafe file_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0)
        guard number >= 0 else { throw SystemError(cannot: "open", path, .current) }
        root = OwnedFD(owning: number)
        open = Array(
            repeating: Array(repeating: nil, count: OperationGenerator.slotCount),
            count: OperationGenerator.actors.count)
    }

    public mutating func perform(_ operation: FileOperation, by actor: FileActor) throws -> FileOutcome {
        umask(actor.umask)
        guard file_become(actor.user, actor.group) == 0 else {
            throw SystemError(cannot: "become", "\(actor)", .current, advice: "It needs root")
        }
        defer { precondition(file_become(0, 0) == 0, "this thread is not root any more") }
        do throws(Errno) {
            return try carryOut(operation, actor)
        } catch {
            return .failed(error.rawValue)
        }
    }

    public mutating func end() {
        for actor in open.indices {
            for slot in open[actor].indices { closeSlot(actor, slot) }
        }
    }

    /// Where holes are is the file system's business: ext4 fills a small allocated range with zeros when it writes a
    /// part of it, sooner or later. Two answers are both right if there are only zeros where the nearer one points.
    public func leavesOpen(
        _ operation: FileOperation, by actor: FileActor, _ one: FileOutcome, _ other: FileOutcome
    ) -> Bool {
        guard case .seek(let slot, _, _) = operation, let file = open[actor.index][slot]?.file else { return false }
        func place(_ outcome: FileOutcome) -> UInt64? {
            switch outcome {
            case .done(let values): values.first
            // No data behind it.
            case .failed(ENXIO): .max
            default: nil
            }
        }
        guard let first = place(one), let second = place(other) else { return false }
        let start = min(first, second)
        var bytes = [UInt8](repeating: 1, count: 4096 - Int(start % 4096))
        let number = unsafe file_open(AT_FDCWD, "/proc/self/fd/\(file)", O_RDONLY, 0)
        guard number >= 0 else { return false }
        let reader = OwnedFD(owning: number)
        let count = unsafe bytes.withUnsafeMutableBytes {
            unsafe pread(reader.number, $0.baseAddress, $0.count, off_t(start))
        }
        return count > 0 && bytes[..<count].allSatisfy { $0 == 0 }
    }

    private mutating func carryOut(_ operation: FileOperation, _ actor: FileActor) throws(Errno) -> FileOutcome {
        switch operation {
        case .makeDirectory, .removeDirectory, .makeNode, .makeSymbolicLink, .unlink, .link, .linkOpen, .rename:
            try changeNames(operation, actor)
        case .open, .openTemporary, .close: try openOrClose(operation, actor)
        case .read, .write, .truncateOpen, .allocate, .seek, .copy, .synchronize, .truncate:
            try useData(operation, actor)
        case .lockFile, .lock, .testLock: try lock(operation, actor)
        case .setAttribute, .attribute, .attributes, .removeAttribute: try useAttributes(operation)
        default: try look(operation, actor)
        }
    }

    // MARK: Names

    private func changeNames(_ operation: FileOperation, _ actor: FileActor) throws(Errno) -> FileOutcome {
        let directory = root.number
        switch operation {
        case .makeDirectory(let path, let mode): try checked { unsafe mkdirat(directory, path, mode) }
        case .removeDirectory(let path): try checked { unsafe unlinkat(directory, path, AT_REMOVEDIR) }
        case .makeNode(let path, let mode, let major, let minor):
            try checked { unsafe file_make_node(directory, path, mode, major, minor) }
        case .makeSymbolicLink(let path, let target): try checked { unsafe symlinkat(target, directory, path) }
        case .unlink(let path): try checked { unsafe unlinkat(directory, path, 0) }
        case .link(let path, let new): try checked { unsafe linkat(directory, path, directory, new, 0) }
        case .linkOpen(let slot, let new):
            guard let file = open[actor.index][slot]?.file else { return .passed }
            try checked { unsafe file_link_open(file, directory, new) }
        case .rename(let path, let new, let flags): try checked { unsafe file_rename(directory, path, new, flags) }
        default: preconditionFailure("that changes no name")
        }
        return .done
    }

    // MARK: Open files

    private mutating func openOrClose(_ operation: FileOperation, _ actor: FileActor) throws(Errno) -> FileOutcome {
        switch operation {
        case .open(let slot, let path, let flags, let mode):
            guard !isSpecial(path, flags) else { return .passed }
            try take(slot, path, flags, mode, actor)
        case .openTemporary(let slot, let path, let flags, let mode):
            try take(slot, path, flags | 0o20200000, mode, actor)
        case .close(let slot): closeSlot(actor.index, slot)
        default: preconditionFailure("that opens nothing")
        }
        return .done
    }

    private mutating func take(
        _ slot: Int, _ path: String, _ flags: Int32, _ mode: UInt32, _ actor: FileActor
    ) throws(Errno) {
        let file = Int32(try checked { unsafe file_open(root.number, path, flags, mode) })
        closeSlot(actor.index, slot)
        let isDirectory = (try? status(file, "")).map { $0.mode & S_IFMT == S_IFDIR } ?? false
        open[actor.index][slot] = OpenSlot(file: file, isDirectory: isDirectory)
    }

    private mutating func closeSlot(_ actor: Int, _ slot: Int) {
        guard let file = open[actor][slot]?.file else { return }
        close(file)
        open[actor][slot] = nil
    }

    /// It is there, and to open it would open something else than a file: a FIFO, a socket, a device.
    private func isSpecial(_ path: String, _ flags: Int32) -> Bool {
        guard flags & O_EXCL == 0 else { return false }
        // O_PATH
        let file = unsafe file_open(root.number, path, 0o10000000 | (flags & O_NOFOLLOW), 0)
        guard file >= 0 else { return false }
        defer { close(file) }
        guard let found = try? status(file, "") else { return false }
        return ![S_IFREG, S_IFDIR, S_IFLNK].contains(found.mode & S_IFMT)
    }

    private mutating func useData(_ operation: FileOperation, _ actor: FileActor) throws(Errno) -> FileOutcome {
        if case .truncate(let path, let size) = operation {
            let through = "/proc/self/fd/\(root.number)/\(path)"
            try checked { unsafe Glibc.truncate(through, off_t(size)) }
            return .done
        }
        guard let slot = operation.slot, let file = open[actor.index][slot]?.file else { return .passed }
        let isDirectory = open[actor.index][slot]?.isDirectory ?? false
        switch operation {
        case .read(_, let offset, let count):
            var bytes = [UInt8](repeating: 0, count: count)
            let got = try checked {
                unsafe bytes.withUnsafeMutableBytes { unsafe pread(file, $0.baseAddress, count, off_t(offset)) }
            }
            return .bytes(Array(bytes[..<got]))
        case .write(_, let offset, let count, let seed):
            let bytes = patterned(count, seed: seed)
            let done = try checked {
                unsafe bytes.withUnsafeBytes { unsafe pwrite(file, $0.baseAddress, count, off_t(offset)) }
            }
            return .done([UInt64(done)])
        case .truncateOpen(_, let size): try checked { ftruncate(file, off_t(size)) }
        case .allocate(_, let mode, let offset, let count):
            if keepsPrivileges(file, actor) { return .passed }
            try checked { file_allocate(file, Int32(mode), Int64(offset), Int64(count)) }
        case .seek(_, let offset, let whence):
            if isDirectory { return .passed }
            return .done([UInt64(try checked { Int(file_seek(file, Int64(offset), Int32(whence))) })])
        case .copy(_, let offset, let target, let newOffset, let count):
            guard let to = open[actor.index][target]?.file else { return .passed }
            if keepsPrivileges(to, actor) { return .passed }
            return .done(
                [UInt64(try checked { Int(file_copy(file, Int64(offset), to, Int64(newOffset), count)) })])
        case .synchronize(_, let dataOnly): try checked { dataOnly ? fdatasync(file) : fsync(file) }
        default: preconditionFailure("that uses no data")
        }
        return .done
    }

    /// FUSE has no way to say of these calls that set-user-ID bits are to go.
    private func keepsPrivileges(_ file: Int32, _ actor: FileActor) -> Bool {
        guard actor.user != 0, let found = try? status(file, "") else { return false }
        return found.mode & (S_ISUID | S_ISGID) != 0
    }

    private func lock(_ operation: FileOperation, _ actor: FileActor) throws(Errno) -> FileOutcome {
        guard let slot = operation.slot, let open = open[actor.index][slot], !open.isDirectory else { return .passed }
        switch operation {
        case .lockFile(_, let kind):
            let request =
                switch kind {
                case .shared: LOCK_SH
                case .exclusive: LOCK_EX
                case .none: LOCK_UN
                }
            try checked { file_flock(open.file, request | LOCK_NB) }
            return .done
        case .lock(_, let kind, let range):
            try checked {
                file_lock(open.file, kind.type, Int64(range.lowerBound), Int64(range.upperBound))
            }
            return .done
        case .testLock(_, let kind, let range):
            var (type, first, last) = (kind.type, Int64(range.lowerBound), Int64(range.upperBound))
            try checked { unsafe file_test_lock(open.file, &type, &first, &last) }
            return type == F_UNLCK ? .done : .done([UInt64(type), UInt64(first), UInt64(last)])
        default: preconditionFailure("that is no lock")
        }
    }

    // MARK: Attributes

    private func useAttributes(_ operation: FileOperation) throws(Errno) -> FileOutcome {
        func through(_ path: String) -> String { "/proc/self/fd/\(root.number)/\(path)" }
        switch operation {
        case .setAttribute(let path, let name, let count, let seed, let flags):
            let value = patterned(count, seed: seed)
            try checked {
                unsafe value.withUnsafeBytes {
                    unsafe lsetxattr(through(path), name, $0.baseAddress, count, Int32(flags))
                }
            }
            return .done
        case .attribute(let path, let name):
            return .bytes(unsafe try filled { unsafe lgetxattr(through(path), name, $0.baseAddress, $0.count) })
        case .attributes(let path):
            let bytes = unsafe try filled {
                unsafe llistxattr(through(path), $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
            }
            return .names(bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.sorted())
        case .removeAttribute(let path, let name):
            try checked { unsafe lremovexattr(through(path), name) }
            return .done
        default: preconditionFailure("that is no extended attribute")
        }
    }

    private func filled(_ call: (UnsafeMutableRawBufferPointer) -> Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = try checked { unsafe bytes.withUnsafeMutableBytes { unsafe call($0) } }
        return Array(bytes[..<count])
    }

    private func look(_ operation: FileOperation, _ actor: FileActor) throws(Errno) -> FileOutcome {
        let directory = root.number
        switch operation {
        case .readLink(let path):
            let bytes = unsafe try filled {
                unsafe readlinkat(
                    directory, path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
            }
            return .bytes(bytes)
        case .status(let path): return .done(values(try status(directory, path)))
        case .statusOpen(let slot):
            guard let file = open[actor.index][slot]?.file else { return .passed }
            return .done(values(try status(file, "")))
        case .changeMode(let path, let mode): try checked { unsafe file_change_mode(directory, path, mode) }
        case .changeModeOpen(let slot, let mode):
            guard let file = open[actor.index][slot]?.file else { return .passed }
            try checked { fchmod(file, mode) }
        case .changeOwner(let path, let user, let group):
            try checked { unsafe file_change_owner(directory, path, user ?? .max, group ?? .max) }
        case .setTimes(let path, let accessed, let modified): return try setTimes(path, accessed, modified)
        case .list(let path, _): return .names(try names(in: path))
        case .synchronizeDirectory(let path):
            let file = Int32(try checked { unsafe file_open(directory, path, O_RDONLY | O_DIRECTORY, 0) })
            defer { close(file) }
            try checked { fsync(file) }
        case .synchronizeAll: try checked { file_sync_all(directory) }
        case .access(let path, let mask): try checked { unsafe file_access(directory, path, Int32(mask)) }
        case .fileSystem:
            var status = file_system_status()
            try checked { unsafe file_system_at(directory, &status) }
            return .done([status.blocks, status.block_size, status.name_length])
        default: preconditionFailure("that is done elsewhere")
        }
        return .done
    }

    private func setTimes(
        _ path: String, _ accessed: TimeChange, _ modified: TimeChange
    ) throws(Errno) -> FileOutcome {
        let (first, second) = (accessed.call, modified.call)
        var times = file_times(seconds: (first.0, second.0), nanoseconds: (first.1, second.1))
        try checked { unsafe file_set_times(root.number, path, &times) }
        guard accessed != .stays || modified != .stays else { return .done }
        let found = try status(root.number, path)
        var result = comparable(found.modified, found.modified_nanoseconds)
        if case .at = accessed { result += comparable(found.accessed, found.accessed_nanoseconds) }
        return .done(result)
    }

    private func names(in path: String) throws(Errno) -> [String] {
        let file = Int32(try checked { unsafe file_open(root.number, path, O_RDONLY | O_DIRECTORY, 0) })
        guard let directory = unsafe fdopendir(file) else { throw .current }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                unsafe tuple.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != "." && name != ".." { names.append("\(name) \(unsafe entry.pointee.d_type)") }
        }
        return names.sorted()
    }

    private func status(_ directory: Int32, _ path: String) throws(Errno) -> file_status {
        var status = file_status()
        try checked { unsafe file_status_at(directory, path, &status) }
        return status
    }

    private func values(_ status: file_status) -> [UInt64] {
        let size = status.mode & S_IFMT == S_IFDIR ? 0 : status.size
        return [UInt64(status.mode), status.links, UInt64(status.user), UInt64(status.group), size]
            + [UInt64(status.major), UInt64(status.minor)]
            + comparable(status.modified, status.modified_nanoseconds)
    }
}

extension FileOperation {
    /// The open file that it uses first.
    var slot: Int? {
        switch self {
        case .linkOpen(let slot, _), .open(let slot, _, _, _), .openTemporary(let slot, _, _, _), .close(let slot),
            .read(let slot, _, _), .write(let slot, _, _, _), .statusOpen(let slot), .changeModeOpen(let slot, _),
            .truncateOpen(let slot, _), .synchronize(let slot, _), .allocate(let slot, _, _, _), .seek(let slot, _, _),
            .copy(let slot, _, _, _, _), .lockFile(let slot, _), .lock(let slot, _, _), .testLock(let slot, _, _):
            slot
        default: nil
        }
    }
}

extension FileLockKind {
    fileprivate var type: Int32 {
        switch self {
        case .shared: F_RDLCK
        case .exclusive: F_WRLCK
        case .none: F_UNLCK
        }
    }
}

extension TimeChange {
    /// Seconds and nanoseconds, as utimensat takes them.
    fileprivate var call: (Int64, Int64) {
        switch self {
        case .stays: (0, Int64(FILE_OMIT))
        case .now: (0, Int64(FILE_NOW))
        case .at(let seconds, let nanoseconds): (seconds, Int64(nanoseconds))
        }
    }
}

/// Runs a call that returns -1 on failure.
@discardableResult
private func checked<Result: FixedWidthInteger>(_ call: () -> Result) throws(Errno) -> Int {
    Int(try retryingInterrupts(call))
}

/// The symbol of an error number where it has one.
func errorName(_ number: Int32) -> String { "\(Errno(rawValue: number))" }
