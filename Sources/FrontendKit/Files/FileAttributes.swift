internal import CWire

/// A moment as a file system has it.
public struct FileTime: Hashable, Sendable, CustomStringConvertible {
    /// Since 1970.
    public var seconds: Int64
    /// 0 to 999,999,999.
    public var nanoseconds: UInt32

    public init(seconds: Int64, nanoseconds: UInt32 = 0) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    public var description: String { "\(seconds).\(nanoseconds)" }
}

/// What a file system says of a node (`fuse_attr`).
public struct FileAttributes: Hashable, Sendable {
    public var inode: UInt64
    public var size: UInt64
    /// In units of 512 bytes.
    public var blocks: UInt64
    public var accessed: FileTime
    public var modified: FileTime
    public var changed: FileTime
    /// Type and permissions, as `st_mode`.
    public var mode: UInt32
    public var links: UInt32
    public var user: UInt32
    public var group: UInt32
    public var device: UInt32
    public var blockSize: UInt32
    /// FUSE_ATTR_SUBMOUNT and others.
    public var flags: UInt32

    init(_ wire: wire_fuse_attr) {
        inode = wire.ino
        size = wire.size
        blocks = wire.blocks
        accessed = FileTime(seconds: Int64(bitPattern: wire.atime), nanoseconds: wire.atimensec)
        modified = FileTime(seconds: Int64(bitPattern: wire.mtime), nanoseconds: wire.mtimensec)
        changed = FileTime(seconds: Int64(bitPattern: wire.ctime), nanoseconds: wire.ctimensec)
        mode = wire.mode
        links = wire.nlink
        user = wire.uid
        group = wire.gid
        device = wire.rdev
        blockSize = wire.blksize
        flags = wire.flags
    }
}

/// A node that the device has made known (`fuse_entry_out`); the device counts how often, until FORGET.
public struct FileEntry: Hashable, Sendable {
    /// Number of the node; 0 says that there is none of that name, where a device answers so.
    public var node: UInt64
    public var generation: UInt64
    public var attributes: FileAttributes

    init(_ wire: wire_fuse_entry_out) {
        node = wire.nodeid
        generation = wire.generation
        attributes = FileAttributes(wire.attr)
    }
}

/// An open file or directory (`fuse_open_out`).
public struct OpenFile: Hashable, Sendable {
    public var handle: UInt64
    /// FOPEN_DIRECT_IO and others.
    public var flags: UInt32

    init(_ wire: wire_fuse_open_out) {
        handle = wire.fh
        flags = wire.open_flags
    }
}

/// A name in a directory.
public struct DirectoryEntry: Hashable, Sendable {
    public var inode: UInt64
    /// Where the directory goes on behind it.
    public var offset: UInt64
    /// The upper bits of `st_mode` (DT_REG and others); 0: not said.
    public var type: UInt32
    public var name: [UInt8]
    /// The node, from READDIRPLUS; its node number is 0 where it was not looked up.
    public var entry: FileEntry?
}

/// What a file system has room for (`fuse_kstatfs`).
public struct FileSystemStatus: Hashable, Sendable {
    public var blocks: UInt64
    public var freeBlocks: UInt64
    public var availableBlocks: UInt64
    public var files: UInt64
    public var freeFiles: UInt64
    public var blockSize: UInt32
    public var nameLength: UInt32
    public var fragmentSize: UInt32

    init(_ wire: wire_fuse_kstatfs) {
        blocks = wire.blocks
        freeBlocks = wire.bfree
        availableBlocks = wire.bavail
        files = wire.files
        freeFiles = wire.ffree
        blockSize = wire.bsize
        nameLength = wire.namelen
        fragmentSize = wire.frsize
    }
}

/// What READDIR and READDIRPLUS answer, taken apart.
enum DirectoryListing {
    /// - Parameter withNodes: the answer is one to READDIRPLUS.
    /// - Returns: nil when the bytes are no list of entries.
    static func parse(_ bytes: UnsafeRawBufferPointer, withNodes: Bool) -> [DirectoryEntry]? {
        var entries: [DirectoryEntry] = []
        let entrySize = withNodes ? MemoryLayout<wire_fuse_entry_out>.size : 0
        let headSize = MemoryLayout<wire_fuse_dirent>.size
        var position = 0
        while bytes.count - position >= entrySize + headSize {
            let head = unsafe bytes.loadUnaligned(fromByteOffset: position + entrySize, as: wire_fuse_dirent.self)
            let nameStart = position + entrySize + headSize
            let length = Int(head.namelen)
            guard length > 0, length <= 1024, nameStart + length <= bytes.count else { return nil }
            let name = unsafe Array(bytes[nameStart..<nameStart + length])
            guard !name.contains(0), !name.contains(UInt8(ascii: "/")) else { return nil }
            let entry =
                withNodes
                ? unsafe FileEntry(bytes.loadUnaligned(fromByteOffset: position, as: wire_fuse_entry_out.self)) : nil
            entries.append(
                DirectoryEntry(inode: head.ino, offset: head.off, type: head.type, name: name, entry: entry))
            // Entries are aligned to 8 bytes.
            position += (entrySize + headSize + length + 7) & ~7
        }
        return position == bytes.count ? entries : nil
    }
}
