internal import CWire

/// Open files and what is in them.
extension FileClient {
    /// Opens a node (OPEN).
    ///
    /// - Parameter flags: as open takes them, without those that make a file.
    public mutating func open(
        _ node: UInt64, flags: UInt32, killsPrivileges: Bool = false
    ) throws(FileError) -> OpenFile {
        let wire = wire_fuse_open_in(flags: flags, open_flags: killsPrivileges ? 1 : 0)
        return OpenFile(try call(.open, node, wire, answering: wire_fuse_open_out.self))
    }

    /// Makes a file and opens it (CREATE).
    public mutating func create(
        _ name: [UInt8], in directory: UInt64, flags: UInt32, mode: UInt32, umask: UInt32 = 0
    ) throws(FileError) -> (entry: FileEntry, open: OpenFile) {
        try create(.create, directory, flags, mode, umask, names: [name])
    }

    /// Makes a file that has no name, and opens it (TMPFILE).
    public mutating func makeTemporaryFile(
        in directory: UInt64, flags: UInt32, mode: UInt32, umask: UInt32 = 0
    ) throws(FileError) -> (entry: FileEntry, open: OpenFile) {
        // The kernel sends a name that stands for none.
        try create(.temporaryFile, directory, flags, mode, umask, names: [[]])
    }

    private mutating func create(
        _ opcode: FileOpcode, _ directory: UInt64, _ flags: UInt32, _ mode: UInt32, _ umask: UInt32, names: [[UInt8]]
    ) throws(FileError) -> (entry: FileEntry, open: OpenFile) {
        let wire = wire_fuse_create_in(flags: flags, mode: mode, umask: umask, open_flags: 0)
        let answer = try call(opcode, directory, wire, names: names, answering: CreateAnswer.self)
        return (FileEntry(answer.entry), OpenFile(answer.open))
    }

    /// Reads up to `count` bytes; fewer at the end of the file.
    public mutating func read(
        _ node: UInt64, _ handle: UInt64, at offset: UInt64, count: Int, flags: UInt32 = 0
    ) throws(FileError) -> [UInt8] {
        let wire = Self.reading(handle, from: offset, count: count, flags: flags)
        return unsafe try perform(.read, node, arguments: Self.bytes(of: wire), answer: .data(count)) {
            unsafe Array($0)
        }
    }

    /// Writes bytes.
    ///
    /// - Parameters:
    ///   - flags: those that the file was opened with.
    ///   - killsPrivileges: the writer may not keep set-user-ID and set-group-ID bits (FUSE_WRITE_KILL_SUIDGID).
    /// - Returns: how many it wrote.
    public mutating func write(
        _ bytes: [UInt8], _ node: UInt64, _ handle: UInt64, at offset: UInt64, flags: UInt32 = 0,
        killsPrivileges: Bool = false
    ) throws(FileError) -> Int {
        let wire = wire_fuse_write_in(
            fh: handle, offset: offset, size: UInt32(bytes.count), write_flags: killsPrivileges ? 4 : 0,
            lock_owner: 0, flags: flags, padding: 0)
        let answer = try call(.write, node, wire, data: bytes, answering: wire_fuse_write_out.self)
        guard answer.size <= UInt32(bytes.count) else {
            throw .malformed(.write, "it wrote \(answer.size) bytes of \(bytes.count)")
        }
        return Int(answer.size)
    }

    /// A descriptor of the file was closed (FLUSH).
    public mutating func flush(_ node: UInt64, _ handle: UInt64, lockOwner: UInt64 = 0) throws(FileError) {
        let wire = wire_fuse_flush_in(fh: handle, unused: 0, padding: 0, lock_owner: lockOwner)
        try call(.flush, node, Self.bytes(of: wire))
    }

    /// The last one was closed (RELEASE).
    ///
    /// - Parameter unlocksFor: gives up the flock of this owner.
    public mutating func release(
        _ node: UInt64, _ handle: UInt64, flags: UInt32 = 0, unlocksFor owner: UInt64? = nil
    ) throws(FileError) {
        let wire = wire_fuse_release_in(
            fh: handle, flags: flags, release_flags: owner == nil ? 0 : 2, lock_owner: owner ?? 0)
        try call(.release, node, Self.bytes(of: wire))
    }

    public mutating func synchronize(_ node: UInt64, _ handle: UInt64, dataOnly: Bool = false) throws(FileError) {
        let wire = wire_fuse_fsync_in(fh: handle, fsync_flags: dataOnly ? 1 : 0, padding: 0)
        try call(.synchronize, node, Self.bytes(of: wire))
    }

    /// Everything in the file system that a node is on (SYNCFS).
    public mutating func synchronizeFileSystem(_ node: UInt64 = FileClient.root) throws(FileError) {
        try call(.synchronizeFileSystem, node, Self.bytes(of: wire_fuse_syncfs_in(padding: 0)))
    }

    /// FALLOCATE, with the modes of fallocate.
    public mutating func allocate(
        _ node: UInt64, _ handle: UInt64, at offset: UInt64, count: UInt64, mode: UInt32
    ) throws(FileError) {
        let wire = wire_fuse_fallocate_in(fh: handle, offset: offset, length: count, mode: mode, padding: 0)
        try call(.allocate, node, Self.bytes(of: wire))
    }

    /// LSEEK with SEEK_DATA or SEEK_HOLE.
    public mutating func seek(
        _ node: UInt64, _ handle: UInt64, from offset: UInt64, whence: UInt32
    ) throws(FileError) -> UInt64 {
        let wire = wire_fuse_lseek_in(fh: handle, offset: offset, whence: whence, padding: 0)
        return try call(.seek, node, wire, answering: wire_fuse_lseek_out.self).offset
    }

    /// A place in an open file.
    public struct Place: Hashable, Sendable {
        public var node: UInt64
        public var handle: UInt64
        public var offset: UInt64

        public init(node: UInt64, handle: UInt64, offset: UInt64) {
            self.node = node
            self.handle = handle
            self.offset = offset
        }
    }

    /// COPY_FILE_RANGE; returns how many bytes were copied.
    public mutating func copy(_ count: UInt64, from source: Place, to target: Place) throws(FileError) -> Int {
        let wire = wire_fuse_copy_file_range_in(
            fh_in: source.handle, off_in: source.offset, nodeid_out: target.node, fh_out: target.handle,
            off_out: target.offset, len: count, flags: 0)
        return Int(try call(.copyRange, source.node, wire, answering: wire_fuse_write_out.self).size)
    }

    // MARK: Locks

    /// A record lock (`fuse_file_lock`), or a flock of the whole file.
    public struct Lock: Hashable, Sendable {
        public enum Kind: UInt32, Sendable {
            case read = 0
            case write = 1
            case none = 2
        }

        public var kind: Kind
        /// First and last byte.
        public var range: ClosedRange<UInt64>
        public var owner: UInt64
        public var process: UInt32
        /// It is a flock.
        public var isOfFile: Bool

        public init(
            _ kind: Kind, _ range: ClosedRange<UInt64> = 0...UInt64(Int64.max), owner: UInt64, process: UInt32 = 1,
            isOfFile: Bool = false
        ) {
            self.kind = kind
            self.range = range
            self.owner = owner
            self.process = process
            self.isOfFile = isOfFile
        }

        func wire(_ handle: UInt64) -> wire_fuse_lk_in {
            wire_fuse_lk_in(
                fh: handle, owner: owner,
                lk: wire_fuse_file_lock(
                    start: range.lowerBound, end: range.upperBound, type: kind.rawValue, pid: process),
                lk_flags: isOfFile ? 1 : 0, padding: 0)
        }
    }

    /// Sets a lock, or takes it back, without waiting (SETLK).
    public mutating func setLock(_ lock: Lock, _ node: UInt64, _ handle: UInt64) throws(FileError) {
        try call(.setLock, node, Self.bytes(of: lock.wire(handle)))
    }

    /// The lock that is in the way of another (GETLK); nil when none is.
    public mutating func conflict(
        with lock: Lock, _ node: UInt64, _ handle: UInt64
    ) throws(FileError) -> (kind: Lock.Kind, range: ClosedRange<UInt64>)? {
        // As Linux asks: for nobody.
        var lock = lock
        lock.process = 0
        let found = try call(.getLock, node, lock.wire(handle), answering: wire_fuse_lk_out.self).lk
        guard let kind = Lock.Kind(rawValue: found.type), found.start <= found.end else {
            throw .malformed(.getLock, "a lock of type \(found.type) from \(found.start) to \(found.end)")
        }
        return kind == .none ? nil : (kind, found.start...found.end)
    }
}

/// What CREATE and TMPFILE answer.
private struct CreateAnswer: BitwiseCopyable {
    var entry: wire_fuse_entry_out
    var open: wire_fuse_open_out
}
