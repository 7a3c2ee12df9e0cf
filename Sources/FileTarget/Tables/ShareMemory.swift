internal import CWire
public import Platform

/// Node and handle tables of a share, in a file in memory that outlives a worker: position-independent, versioned, and
/// readable whatever store the worker before died at (NodeTable.swift and FileTable.swift say why).
@safe public struct ShareMemory: ~Copyable, @unchecked Sendable {
    let mapping: Mapping
    let nodes: NodeTable
    /// Room for open files, and for what else has a descriptor: locks, mounts, nodes without a file handle.
    public let files: Int
    let firstFile: UnsafeMutableRawPointer

    /// Nodes that can be asked for. One slot is never used and one is the root's.
    public static let nodeRange = 4...(1 << 24)
    public static let fileRange = 4...(1 << 20)

    /// Bytes of the tables: 100 for each node, 32 for each file.
    public static func byteCount(nodes: Int, files: Int) -> Int {
        Int(WIRE_SHARE_HEADER_BYTES) + bucketBytes(nodes) + nodes * Int(WIRE_SHARE_NODE_BYTES)
            + files * Int(WIRE_SHARE_FILE_BYTES)
    }

    private static func bucketBytes(_ nodes: Int) -> Int { (4 * nodes + 63) & ~63 }

    /// Makes empty tables.
    ///
    /// - Parameters:
    ///   - file: of `byteCount` zero bytes, which nobody else uses yet.
    ///   - nodes: in `nodeRange`.
    ///   - files: in `fileRange`.
    /// - Throws: when it cannot be mapped.
    public init(making file: borrowing OwnedFD, nodes: Int, files: Int) throws(SystemError) {
        precondition(Self.nodeRange.contains(nodes) && Self.fileRange.contains(files))
        let count = Self.byteCount(nodes: nodes, files: files)
        let mapping = try Self.map(file, count)
        let base = unsafe mapping.base
        unsafe wire_store32(base + 8, UInt32(WIRE_SHARE_VERSION))
        unsafe wire_store32(base + 12, UInt32(WIRE_SHARE_VERSION))
        unsafe wire_store32(base + 16, UInt32(nodes))
        unsafe wire_store32(base + 20, UInt32(files))
        unsafe wire_store64(base + 24, UInt64(count))
        // Slot 0 is nobody's, slot 1 the root's.
        unsafe wire_store32(base + Int(WIRE_SHARE_FRESH_NODE), 2)
        unsafe wire_store32(base + Int(WIRE_SHARE_FRESH_FILE), 1)
        unsafe wire_store64(base + Int(WIRE_SHARE_NAME_SALT), UInt64.random(in: 0 ... .max))
        unsafe wire_store64(base, WIRE_SHARE_MAGIC)
        self.init(mapping, nodes: nodes, files: files)
    }

    /// Maps tables that another worker has made, and may be using. Changes nothing.
    ///
    /// - Throws: a sentence, when they are of another version, or damaged.
    public init(mapping file: borrowing OwnedFD) throws(SystemError) {
        let size: UInt64?
        do throws(Errno) {
            size = try file.fileSize()
        } catch {
            throw SystemError(cannot: "take over", "the tables of a share", error)
        }
        guard let size, size >= UInt64(WIRE_SHARE_HEADER_BYTES), let size = Int(exactly: size) else {
            throw Self.damaged("they are too short")
        }
        let mapping = try Self.map(file, size)
        let base = unsafe mapping.base
        guard unsafe wire_load64(base) == WIRE_SHARE_MAGIC else { throw Self.damaged("they do not begin as tables do") }
        let version = unsafe wire_load32(base + 8)
        guard version == UInt32(WIRE_SHARE_VERSION) else { throw Self.damaged("their version is \(version)") }
        let (nodes, files) = unsafe (Int(wire_load32(base + 16)), Int(wire_load32(base + 20)))
        let count = unsafe wire_load64(base + 24)
        guard Self.nodeRange.contains(nodes), Self.fileRange.contains(files),
            Self.byteCount(nodes: nodes, files: files) == size, count == UInt64(size)
        else { throw Self.damaged("their size is not what they say") }
        let fresh = unsafe Int(wire_load32(base + Int(WIRE_SHARE_FRESH_NODE)))
        let freshFile = unsafe Int(wire_load32(base + Int(WIRE_SHARE_FRESH_FILE)))
        guard (2...nodes).contains(fresh), (1...files).contains(freshFile) else {
            throw Self.damaged("they say to be fuller than they are")
        }
        self.init(mapping, nodes: nodes, files: files)
    }

    private init(_ mapping: consuming Mapping, nodes: Int, files: Int) {
        let base = unsafe mapping.base
        let buckets = unsafe base + Int(WIRE_SHARE_HEADER_BYTES)
        let first = unsafe buckets + Self.bucketBytes(nodes)
        self.nodes = unsafe NodeTable(header: base, buckets: buckets, nodes: first, capacity: UInt32(nodes))
        unsafe firstFile = first + nodes * Int(WIRE_SHARE_NODE_BYTES)
        self.files = files
        self.mapping = mapping
    }

    private static func map(_ file: borrowing OwnedFD, _ count: Int) throws(SystemError) -> Mapping {
        do throws(Errno) {
            let mapping = try Mapping(sharing: file, count: count)
            mapping.excludeFromCoreDumps()
            return mapping
        } catch {
            throw SystemError(cannot: "map", "the tables of a share", error)
        }
    }

    private static func damaged(_ why: String) -> SystemError {
        SystemError(
            cannot: "take over", "the tables of a share", nil,
            advice: "\(why): the share can only be made anew, which its driver will notice")
    }
}

// MARK: - What was agreed on with the driver

extension ShareMemory {
    /// What INIT has agreed on; nil before.
    var agreement: FuseAgreement? {
        let minor = unsafe wire_load64(mapping.base + Int(WIRE_SHARE_AGREED_MINOR))
        if minor == 0 { return nil }
        return unsafe FuseAgreement(
            minor: UInt32(truncatingIfNeeded: minor),
            flags: wire_load64(mapping.base + Int(WIRE_SHARE_AGREED_FLAGS)))
    }

    /// The minor version is stored last: whoever finds one finds its flags.
    func agree(_ agreement: FuseAgreement?) {
        if let agreement {
            unsafe wire_store64(mapping.base + Int(WIRE_SHARE_AGREED_FLAGS), agreement.flags)
        }
        unsafe wire_store64(mapping.base + Int(WIRE_SHARE_AGREED_MINOR), UInt64(agreement?.minor ?? 0))
    }
}

// MARK: - Private names

extension ShareMemory {
    /// Writes the name that a file has until it gets the one that a request wants for it. Nobody else in this or
    /// another share uses it, and whoever carries the request out again finds it.
    ///
    /// - Parameter to: room for 64 bytes.
    func writePrivateName(of unique: UInt64, to name: UnsafeMutablePointer<CChar>) {
        var length = 0
        func put(_ text: StaticString) {
            for index in 0..<text.utf8CodeUnitCount {
                unsafe name[length] = CChar(bitPattern: text.utf8Start[index])
                length += 1
            }
        }
        func put(_ value: UInt64) {
            for shift in stride(from: 60, through: 0, by: -4) {
                let digit = UInt8(truncatingIfNeeded: value >> UInt64(shift) & 15)
                unsafe name[length] = CChar(bitPattern: digit < 10 ? 48 + digit : 87 + digit)
                length += 1
            }
        }
        put(".baton-")
        put(unsafe wire_load64(mapping.base + Int(WIRE_SHARE_NAME_SALT)))
        put("-")
        put(unique)
        unsafe name[length] = 0
    }
}

// MARK: - Mounts: whoever uses them holds the session's lock of nodes

extension ShareMemory {
    private func mountPlace(_ index: UInt32) -> UnsafeMutableRawPointer {
        precondition(index > 0 && index < UInt32(WIRE_SHARE_MAX_MOUNTS))
        return unsafe mapping.base + Int(WIRE_SHARE_FIRST_MOUNT) + 16 * Int(index)
    }

    func mount(_ identity: MountIdentity) -> UInt32? {
        let value = identity.value
        for index in 1..<UInt32(WIRE_SHARE_MAX_MOUNTS) where unsafe wire_load64(mountPlace(index)) == value {
            return index
        }
        return nil
    }

    /// - Returns: nil when there are too many.
    func addMount(_ identity: MountIdentity, file: UInt32) -> UInt32? {
        if let known = mount(identity) { return known }
        for index in 1..<UInt32(WIRE_SHARE_MAX_MOUNTS) where unsafe wire_load64(mountPlace(index)) == 0 {
            unsafe wire_store64(mountPlace(index) + 8, UInt64(file + 1))
            unsafe wire_store64(mountPlace(index), identity.value)
            return index
        }
        return nil
    }

    func mountFile(_ mount: UInt32) -> UInt32? {
        guard mount > 0, mount < UInt32(WIRE_SHARE_MAX_MOUNTS) else { return nil }
        let file = unsafe wire_load64(mountPlace(mount) + 8)
        return file > 0 && file <= UInt64(files) ? UInt32(file - 1) : nil
    }
}
