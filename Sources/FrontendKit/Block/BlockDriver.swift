internal import Platform

/// How the bytes of one request are spread over descriptors.
///
/// What the device reads (header, then data to write) is one run of bytes, what it writes (data read, then status)
/// another; each is cut into pieces of these lengths. A device must cope with any cut: virtio 1.2, section 2.7.4.
public struct DescriptorLayout: Hashable, Sendable {
    /// Lengths of the pieces of header and data to write; nil: 16 and the rest.
    public var readablePieces: [Int]?
    /// Lengths of the pieces of data read and status; nil: all but the last byte, and that.
    public var writablePieces: [Int]?
    /// The chain lies in a table, to which the ring's descriptor points.
    public var isIndirect: Bool

    public init(readablePieces: [Int]? = nil, writablePieces: [Int]? = nil, isIndirect: Bool = false) {
        self.readablePieces = readablePieces
        self.writablePieces = writablePieces
        self.isIndirect = isIndirect
    }

    /// Header, data, status, each with a descriptor of its own.
    public static let plain = DescriptorLayout()
    /// The same in a table.
    public static let indirect = DescriptorLayout(isIndirect: true)
}

/// How one request ended.
public struct BlockResult: Hashable, Sendable {
    /// `notWritten` when the device wrote none.
    public var status: BlockStatus
    /// Bytes that the device says it wrote.
    public var usedLength: UInt32
    /// What it wrote in front of the status byte.
    public var data: [UInt8]
}

/// Why a request has no result.
public enum BlockDriverError: Error, Sendable, CustomStringConvertible {
    case violation(QueueViolation)
    case noCompletion(BlockRequestKind, milliseconds: Int32)

    public var description: String {
        switch self {
        case .violation(let violation): "\(violation)"
        case .noCompletion(let kind, let milliseconds): "no completion of \(kind) within \(milliseconds) ms"
        }
    }
}

/// One request at a time, for tests: any kind, any descriptor layout, every byte around the buffers watched.
public struct BlockDriver: ~Copyable {
    public private(set) var driver: DriverQueue
    /// Guest address of what the device reads; any place with enough room, also one that crosses regions.
    public var readableAddress: UInt64
    /// Guest address of what the device writes; any place with enough room and `guardCount` bytes around it.
    public var writableAddress: UInt64
    /// How long a request may take, in milliseconds.
    public var timeout: Int32 = 30_000

    /// Bytes before and behind the writable part that must stay as they are.
    public static let guardCount = 64
    private static let guardByte: UInt8 = 0xa5
    private static let maximumTable = 1024
    private let table: UInt64

    /// - Parameter bufferSize: the most bytes of data in one request.
    /// - Parameter allocator: guest memory for two buffers and a descriptor table.
    public init(_ driver: consuming DriverQueue, bufferSize: Int, in allocator: inout GuestAllocator) {
        readableAddress = allocator.allocate(bufferSize + 16, alignment: 4096)
        writableAddress = allocator.allocate(bufferSize + 1 + 2 * Self.guardCount, alignment: 4096)
        writableAddress += UInt64(Self.guardCount)
        table = allocator.allocate(2 * Descriptor.byteCount * Self.maximumTable)
        self.driver = driver
    }

    // MARK: Requests

    /// Reads `count` bytes.
    public mutating func read(
        sector: UInt64, count: Int, layout: DescriptorLayout = .plain
    ) throws(BlockDriverError) -> BlockResult {
        try perform(.read, sector: sector, readCount: count, layout: layout)
    }

    /// Writes bytes.
    public mutating func write(
        _ bytes: [UInt8], sector: UInt64, layout: DescriptorLayout = .plain
    ) throws(BlockDriverError) -> BlockResult {
        try perform(.write, sector: sector, writing: bytes, layout: layout)
    }

    /// Makes what was written durable.
    public mutating func flush() throws(BlockDriverError) -> BlockResult {
        try perform(.flush)
    }

    /// Frees ranges of sectors.
    public mutating func discard(
        _ segments: [BlockSegment], layout: DescriptorLayout = .plain
    ) throws(BlockDriverError) -> BlockResult {
        try perform(.discard, writing: BlockSegment.bytes(of: segments), layout: layout)
    }

    /// Sets ranges of sectors to zero.
    public mutating func writeZeroes(
        _ segments: [BlockSegment], layout: DescriptorLayout = .plain
    ) throws(BlockDriverError) -> BlockResult {
        try perform(.writeZeroes, writing: BlockSegment.bytes(of: segments), layout: layout)
    }

    /// Reads the device's name: 20 bytes, padded with zeros.
    public mutating func getID(layout: DescriptorLayout = .plain) throws(BlockDriverError) -> BlockResult {
        try perform(.getID, readCount: 20, layout: layout)
    }

    /// Sends one request and waits for it.
    ///
    /// - Parameter bytes: what follows the header.
    /// - Parameter readCount: room for this many bytes in front of the status byte.
    public mutating func perform(
        _ kind: BlockRequestKind, sector: UInt64 = 0, writing bytes: [UInt8] = [], readCount: Int = 0,
        layout: DescriptorLayout = .plain
    ) throws(BlockDriverError) -> BlockResult {
        let header = littleEndianBytes(kind.rawValue) + littleEndianBytes(UInt32(0)) + littleEndianBytes(sector)
        return try perform(kind, readable: header + bytes, writableCount: readCount + 1, layout: layout)
    }

    /// Sends any bytes and waits for them to come back.
    ///
    /// - Parameter kind: what to call the request in an error.
    /// - Parameter readable: what the device may read; a request that is none may be shorter than a header.
    /// - Parameter writableCount: what the device may write; 0 leaves it no room for a status.
    public mutating func perform(
        _ kind: BlockRequestKind, readable: [UInt8], writableCount: Int, layout: DescriptorLayout = .plain
    ) throws(BlockDriverError) -> BlockResult {
        let memory = driver.endpoint.memory
        let guardCount = Self.guardCount
        let guarded = writableAddress - UInt64(guardCount)
        memory.write(readable, at: readableAddress)
        memory.fill(Self.guardByte, count: writableCount + 2 * guardCount, at: guarded)
        if writableCount > 0 {
            memory.fill(BlockStatus.notWritten.rawValue, count: 1, at: writableAddress + UInt64(writableCount - 1))
        }
        makeAvailable(chain(readableCount: readable.count, writableCount: writableCount, layout), layout)
        let used = try waitForUsed(kind)
        guard used.length <= UInt32(writableCount) else {
            throw .violation(.usedLengthTooLarge(used.length, writable: UInt32(writableCount)))
        }
        let around = memory.read(writableCount + 2 * guardCount, at: guarded)
        let guards = around.prefix(guardCount) + around.suffix(guardCount)
        guard guards.allSatisfy({ $0 == Self.guardByte }), memory.read(readable.count, at: readableAddress) == readable
        else { throw .violation(.wroteOutside(kind: kind, sector: 0)) }
        let written = around.dropFirst(guardCount).prefix(writableCount)
        return BlockResult(
            status: BlockStatus(rawValue: written.last ?? BlockStatus.notWritten.rawValue), usedLength: used.length,
            data: Array(written.dropLast()))
    }

    // MARK: Steps

    /// The chain's descriptors; `next` counts from the first.
    private borrowing func chain(
        readableCount: Int, writableCount: Int, _ layout: DescriptorLayout
    ) -> [Descriptor] {
        let readable = layout.readablePieces ?? [min(16, readableCount), max(0, readableCount - 16)]
        let writable = layout.writablePieces ?? [max(0, writableCount - 1), min(1, writableCount)]
        precondition(
            readable.reduce(0, +) == readableCount && writable.reduce(0, +) == writableCount,
            "the pieces are not the request")
        var chain: [Descriptor] = []
        var address = readableAddress
        for length in readable where length > 0 {
            chain.append(Descriptor(address: address, length: UInt32(length)))
            address += UInt64(length)
        }
        address = writableAddress
        for length in writable where length > 0 {
            chain.append(Descriptor(address: address, length: UInt32(length), flags: .deviceWrites))
            address += UInt64(length)
        }
        for index in chain.indices.dropLast() {
            chain[index].flags.insert(.next)
            chain[index].next = UInt16(index + 1)
        }
        return chain
    }

    private mutating func makeAvailable(_ chain: [Descriptor], _ layout: DescriptorLayout) {
        if layout.isIndirect {
            precondition(chain.count <= Self.maximumTable, "the table is too small")
            let bytes = Descriptor.bytes(of: chain)
            driver.endpoint.memory.write(bytes, at: table)
            driver.write(Descriptor(address: table, length: UInt32(bytes.count), flags: .indirect), at: 0)
        } else {
            for (index, descriptor) in chain.enumerated() { driver.write(descriptor, at: index) }
        }
        driver.stage(head: 0)
        driver.publish()
        driver.kick()
    }

    private mutating func waitForUsed(_ kind: BlockRequestKind) throws(BlockDriverError) -> UsedElement {
        do throws(QueueViolation) {
            if driver.waitForCompletion(milliseconds: timeout), let used = try driver.nextCompletion() { return used }
        } catch {
            throw .violation(error)
        }
        throw .noCompletion(kind, milliseconds: timeout)
    }
}
