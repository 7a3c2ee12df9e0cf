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
    private static let queueLimit = 1 << 16
    private static let slotLimit = 1 << 15

    /// How large tables are.
    public struct Size: Sendable {
        /// In `nodeRange`.
        public var nodes: Int
        /// In `fileRange`.
        public var files: Int
        /// Queues, and descriptors of each, whose requests are carried out once whoever dies.
        public var queues: Int
        public var slots: Int

        public init(nodes: Int, files: Int, queues: Int = 0, slots: Int = 0) {
            (self.nodes, self.files, self.queues, self.slots) = (nodes, files, queues, slots)
        }

        /// 100 for each node, 32 for each file; 1040 for each descriptor, which are touched as they are used.
        public var byteCount: Int {
            Int(WIRE_SHARE_HEADER_BYTES) + bucketBytes(nodes) + nodes * Int(WIRE_SHARE_NODE_BYTES)
                + files * Int(WIRE_SHARE_FILE_BYTES) + RequestEffects.byteCount(queues: queues, slots: slots)
        }
    }

    private static func bucketBytes(_ nodes: Int) -> Int { (4 * nodes + 63) & ~63 }

    /// Makes empty tables.
    ///
    /// - Parameters:
    ///   - file: of so many zero bytes, which nobody else uses yet.
    /// - Throws: when it cannot be mapped.
    public init(making file: borrowing OwnedFD, _ size: Size) throws(SystemError) {
        precondition(Self.isPossible(size))
        let count = size.byteCount
        let mapping = try Self.map(file, count)
        let base = unsafe mapping.base
        unsafe wire_store32(base + 8, UInt32(WIRE_SHARE_VERSION))
        unsafe wire_store32(base + 12, UInt32(WIRE_SHARE_VERSION))
        unsafe wire_store32(base + 16, UInt32(size.nodes))
        unsafe wire_store32(base + 20, UInt32(size.files))
        unsafe wire_store32(base + Int(WIRE_SHARE_EFFECT_QUEUES), UInt32(size.queues))
        unsafe wire_store32(base + Int(WIRE_SHARE_EFFECT_SLOTS), UInt32(size.slots))
        unsafe wire_store64(base + 24, UInt64(count))
        // Slot 0 is nobody's, slot 1 the root's.
        unsafe wire_store32(base + Int(WIRE_SHARE_FRESH_NODE), 2)
        unsafe wire_store32(base + Int(WIRE_SHARE_FRESH_FILE), 1)
        unsafe wire_store64(base + Int(WIRE_SHARE_NAME_SALT), UInt64.random(in: 1 ... .max))
        unsafe wire_store64(base, WIRE_SHARE_MAGIC)
        self.init(mapping, size)
    }

    private static func isPossible(_ size: Size) -> Bool {
        nodeRange.contains(size.nodes) && fileRange.contains(size.files)
            && (0...queueLimit).contains(size.queues) && (0...slotLimit).contains(size.slots)
    }

    /// Maps tables that another worker has made, and may be using. Changes nothing.
    ///
    /// - Throws: a sentence, when they are of another version, or damaged.
    public init(mapping file: borrowing OwnedFD) throws(SystemError) {
        let bytes: UInt64?
        do throws(Errno) {
            bytes = try file.fileSize()
        } catch {
            throw SystemError(cannot: "take over", "the tables of a share", error)
        }
        guard let bytes, bytes >= UInt64(WIRE_SHARE_HEADER_BYTES), let bytes = Int(exactly: bytes) else {
            throw Self.damaged("they are too short")
        }
        let mapping = try Self.map(file, bytes)
        let base = unsafe mapping.base
        guard unsafe wire_load64(base) == WIRE_SHARE_MAGIC else { throw Self.damaged("they do not begin as tables do") }
        let version = unsafe wire_load32(base + 8)
        guard version == UInt32(WIRE_SHARE_VERSION) else { throw Self.damaged("their version is \(version)") }
        func number(_ offset: Int) -> Int { Int(unsafe wire_load32(base + offset)) }
        let size = Size(
            nodes: number(16), files: number(20), queues: number(Int(WIRE_SHARE_EFFECT_QUEUES)),
            slots: number(Int(WIRE_SHARE_EFFECT_SLOTS)))
        let count = unsafe wire_load64(base + 24)
        guard Self.isPossible(size), size.byteCount == bytes, count == UInt64(bytes)
        else { throw Self.damaged("their size is not what they say") }
        let fresh = unsafe Int(wire_load32(base + Int(WIRE_SHARE_FRESH_NODE)))
        let freshFile = unsafe Int(wire_load32(base + Int(WIRE_SHARE_FRESH_FILE)))
        guard (2...size.nodes).contains(fresh), (1...size.files).contains(freshFile) else {
            throw Self.damaged("they say to be fuller than they are")
        }
        self.init(mapping, size)
    }

    private init(_ mapping: consuming Mapping, _ size: Size) {
        let base = unsafe mapping.base
        let buckets = unsafe base + Int(WIRE_SHARE_HEADER_BYTES)
        let first = unsafe buckets + Self.bucketBytes(size.nodes)
        unsafe firstFile = first + size.nodes * Int(WIRE_SHARE_NODE_BYTES)
        files = size.files
        let effects = unsafe RequestEffects(
            header: base, effects: firstFile + size.files * Int(WIRE_SHARE_FILE_BYTES), queues: size.queues,
            slots: size.slots)
        nodes = unsafe NodeTable(
            header: base, buckets: buckets, nodes: first, capacity: UInt32(size.nodes), effects: effects)
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
    /// Tables of a build that made no such names have no salt.
    func addSalt() {
        let place = unsafe mapping.base + Int(WIRE_SHARE_NAME_SALT)
        if unsafe wire_load64(place) == 0 { unsafe wire_store64(place, UInt64.random(in: 1 ... .max)) }
    }

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
