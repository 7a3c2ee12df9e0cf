internal import CWire

/// Names: what makes, moves and removes them, and lists them.
extension FileClient {
    /// How a name is moved (flags of RENAME2).
    public struct RenameFlags: OptionSet, Hashable, Sendable {
        public var rawValue: UInt32

        public init(rawValue: UInt32) { self.rawValue = rawValue }

        public static let noReplace = RenameFlags(rawValue: 1)
        public static let exchange = RenameFlags(rawValue: 2)
        public static let whiteout = RenameFlags(rawValue: 4)
    }

    public mutating func makeDirectory(
        _ name: [UInt8], in directory: UInt64, mode: UInt32, umask: UInt32 = 0
    ) throws(FileError) -> FileEntry {
        try entry(
            .makeDirectory, directory, Self.bytes(of: wire_fuse_mkdir_in(mode: mode, umask: umask)), names: [name])
    }

    /// - Parameters:
    ///   - mode: type and permissions, as mknod takes them.
    ///   - device: for a device node, as the kernel encodes it.
    public mutating func makeNode(
        _ name: [UInt8], in directory: UInt64, mode: UInt32, device: UInt32 = 0, umask: UInt32 = 0
    ) throws(FileError) -> FileEntry {
        let wire = wire_fuse_mknod_in(mode: mode, rdev: device, umask: umask, padding: 0)
        return try entry(.makeNode, directory, Self.bytes(of: wire), names: [name])
    }

    public mutating func makeSymbolicLink(
        _ name: [UInt8], to target: [UInt8], in directory: UInt64
    ) throws(FileError) -> FileEntry {
        try entry(.symbolicLink, directory, names: [name, target])
    }

    public mutating func readLink(_ node: UInt64) throws(FileError) -> [UInt8] {
        unsafe try perform(.readLink, node, arguments: [], answer: .data(4096)) { unsafe Array($0) }
    }

    /// Gives a node another name.
    public mutating func link(
        _ node: UInt64, as name: [UInt8], in directory: UInt64
    ) throws(FileError) -> FileEntry {
        try entry(.link, directory, Self.bytes(of: wire_fuse_link_in(oldnodeid: node)), names: [name])
    }

    public mutating func unlink(_ name: [UInt8], in directory: UInt64) throws(FileError) {
        try call(.unlink, directory, Self.bytes([name]))
    }

    public mutating func removeDirectory(_ name: [UInt8], in directory: UInt64) throws(FileError) {
        try call(.removeDirectory, directory, Self.bytes([name]))
    }

    /// RENAME or, with flags, RENAME2.
    public mutating func rename(
        _ name: [UInt8], in directory: UInt64, to newName: [UInt8], in newDirectory: UInt64, flags: RenameFlags = []
    ) throws(FileError) {
        let names = Self.bytes([name, newName])
        if flags.isEmpty {
            try call(.rename, directory, Self.bytes(of: wire_fuse_rename_in(newdir: newDirectory)) + names)
        } else {
            let wire = wire_fuse_rename2_in(newdir: newDirectory, flags: flags.rawValue, padding: 0)
            try call(.renameWithFlags, directory, Self.bytes(of: wire) + names)
        }
    }

    // MARK: Directories

    public mutating func openDirectory(_ node: UInt64, flags: UInt32 = 0o200000) throws(FileError) -> OpenFile {
        OpenFile(
            try call(
                .openDirectory, node, wire_fuse_open_in(flags: flags, open_flags: 0),
                answering: wire_fuse_open_out.self))
    }

    /// Reads one part of a directory.
    ///
    /// - Parameters:
    ///   - offset: 0, or that of the last entry.
    ///   - withNodes: READDIRPLUS; each entry but "." and ".." with a node number makes its node known.
    /// - Returns: empty at the end.
    public mutating func readDirectory(
        _ node: UInt64, _ handle: UInt64, from offset: UInt64, count: Int = 4096, withNodes: Bool = false
    ) throws(FileError) -> [DirectoryEntry] {
        let opcode: FileOpcode = withNodes ? .readDirectoryPlus : .readDirectory
        let wire = Self.reading(handle, from: offset, count: count)
        return unsafe try perform(opcode, node, arguments: Self.bytes(of: wire), answer: .data(count)) {
            (bytes) throws(FileError) in
            guard let entries = unsafe DirectoryListing.parse(bytes, withNodes: withNodes) else {
                throw .malformed(opcode, "its \(bytes.count) bytes are no list of entries")
            }
            return entries
        }
    }

    public mutating func releaseDirectory(_ node: UInt64, _ handle: UInt64) throws(FileError) {
        let wire = wire_fuse_release_in(fh: handle, flags: 0, release_flags: 0, lock_owner: 0)
        try call(.releaseDirectory, node, Self.bytes(of: wire))
    }

    public mutating func synchronizeDirectory(
        _ node: UInt64, _ handle: UInt64, dataOnly: Bool = false
    ) throws(FileError) {
        let wire = wire_fuse_fsync_in(fh: handle, fsync_flags: dataOnly ? 1 : 0, padding: 0)
        try call(.synchronizeDirectory, node, Self.bytes(of: wire))
    }

    /// Every entry of a directory, "." and ".." left out; nodes that become known are forgotten again.
    public mutating func listDirectory(
        _ node: UInt64, part: Int = 4096, withNodes: Bool = false
    ) throws(FileError) -> [DirectoryEntry] {
        let open = try openDirectory(node)
        var all: [DirectoryEntry] = []
        var offset: UInt64 = 0
        // Bounded by what a directory of the tests can hold.
        while all.count < 1 << 20 {
            let entries = try readDirectory(node, open.handle, from: offset, count: part, withNodes: withNodes)
            guard let last = entries.last else { break }
            offset = last.offset
            all += entries.filter { $0.name != [0x2e] && $0.name != [0x2e, 0x2e] }
            for entry in entries where entry.name != [0x2e] && entry.name != [0x2e, 0x2e] {
                if let known = entry.entry, known.node != 0 { try forget(known.node) }
            }
        }
        try releaseDirectory(node, open.handle)
        return all
    }

    static func reading(_ handle: UInt64, from offset: UInt64, count: Int, flags: UInt32 = 0) -> wire_fuse_read_in {
        wire_fuse_read_in(
            fh: handle, offset: offset, size: UInt32(count), read_flags: 0, lock_owner: 0, flags: flags, padding: 0)
    }
}
