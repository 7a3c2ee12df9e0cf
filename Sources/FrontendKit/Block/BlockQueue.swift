internal import CWire
internal import Platform

/// The fast level: a queue of block requests whose headers, status bytes and descriptor chains were laid out
/// beforehand.
///
/// Each request takes a slot. A slot has a cache line of guest memory, with the header at its beginning and the status
/// byte near its end, and a chain of its own: header, up to `maximumPieces` of data, status. Direct slots own that many
/// descriptors of the ring; indirect ones own one, and a table. So a submission writes the header, one descriptor and
/// one ring entry, and nothing is allocated after `init`. What comes back is checked: see `QueueViolation`.
@safe public struct BlockQueue: ~Copyable, @unchecked Sendable {
    /// How the chains of a queue are laid out.
    public enum ChainLayout: Hashable, Sendable, CaseIterable {
        /// Every descriptor in the ring.
        case direct
        /// One descriptor in the ring, which points to a table (VIRTIO_F_INDIRECT_DESC).
        case indirect
    }

    public private(set) var driver: DriverQueue
    /// How many requests can be in flight.
    public let depth: Int
    /// The most descriptors that one request's data can have.
    public let maximumPieces: Int

    private let slots: UnsafeMutablePointer<Slot>
    /// Slots that are free, as a stack: the one used last is the one whose cache lines are warm.
    private let freeSlots: UnsafeMutablePointer<UInt16>
    private var freeCount: Int
    private let slotOfHead: UnsafeMutablePointer<UInt16>

    /// - Parameter depth: requests in flight at most; direct chains need `depth * (maximumPieces + 2)` descriptors.
    /// - Parameter allocator: guest memory for 64 bytes for each slot, and for indirect tables.
    public init(
        _ driver: consuming DriverQueue, depth: Int, layout: ChainLayout, maximumPieces: Int = 1,
        in allocator: inout GuestAllocator
    ) {
        let stride = layout == .direct ? maximumPieces + 2 : 1
        precondition(depth > 0 && maximumPieces > 0 && depth * stride <= driver.size, "the ring is too small")
        self.depth = depth
        self.maximumPieces = maximumPieces
        unsafe slots = .allocate(capacity: depth)
        unsafe freeSlots = .allocate(capacity: depth)
        unsafe slotOfHead = .allocate(capacity: driver.size)
        unsafe slotOfHead.initialize(repeating: 0, count: driver.size)
        let lines = allocator.allocate(depth * Slot.lineCount)
        for index in 0..<depth {
            let line = lines + UInt64(index * Slot.lineCount)
            let head = index * stride
            let chain: Chain
            switch layout {
            case .direct:
                chain = unsafe Chain(descriptors: driver.laidOut(at: head), firstIndex: head)
            case .indirect:
                // With room for a packed table behind it.
                let count = 16 * (maximumPieces + 2)
                let table = allocator.allocate(2 * count)
                let place = unsafe driver.endpoint.memory.pointer(to: table, count: 2 * count)
                chain = unsafe Chain(
                    descriptors: place.assumingMemoryBound(to: wire_virtq_desc.self), firstIndex: 0)
                driver.write(
                    Descriptor(address: table, length: UInt32(16 * (maximumPieces + 2)), flags: .indirect), at: head)
            }
            let slot = Slot(
                driver.endpoint.memory, line: line, head: UInt16(head), chain: chain, maximumPieces: maximumPieces)
            unsafe (slots + index).initialize(to: slot)
            unsafe (freeSlots + index).initialize(to: UInt16(depth - 1 - index))
            unsafe slotOfHead[head] = UInt16(index)
        }
        freeCount = depth
        self.driver = driver
    }

    deinit {
        unsafe slots.deallocate()
        unsafe freeSlots.deallocate()
        unsafe slotOfHead.deallocate()
    }

    /// Requests that were submitted and have not come back.
    public var outstanding: Int { depth - freeCount }

    /// Whether one more request may be submitted.
    public var hasRoom: Bool { freeCount > 0 && driver.hasRoom }

    /// Lays out a request and stages it; `publish` shows it to the device.
    public mutating func submit(_ request: BlockRequest) {
        precondition(freeCount > 0, "the queue is full")
        freeCount -= 1
        let index = unsafe Int(freeSlots[freeCount])
        unsafe slots[index].prepare(request, maximumPieces: maximumPieces)
        driver.stage(head: unsafe Int(slots[index].head))
    }

    /// Shows the device everything that was submitted, and kicks it if it wants that.
    public mutating func publish() {
        driver.publish()
        driver.kick()
    }

    /// Takes the next completion, or nil when there is none.
    ///
    /// - Throws: what the back-end did wrong; the queue is unusable then.
    public mutating func nextCompletion() throws(QueueViolation) -> BlockCompletion? {
        guard let used = try driver.nextCompletion() else { return nil }
        let index = unsafe slotOfHead[used.head]
        let completion = try unsafe slots[Int(index)].complete(usedLength: used.length)
        unsafe freeSlots[freeCount] = index
        freeCount += 1
        return completion
    }

    /// Takes completions until there is none, or one is there and the time is over.
    ///
    /// - Returns: false when nothing came in time.
    public mutating func waitForCompletion(milliseconds: Int32) -> Bool {
        driver.waitForCompletion(milliseconds: milliseconds)
    }

    /// Asks for an interrupt at the next completion; false when one is there already.
    public mutating func requestInterrupt() -> Bool { driver.requestInterrupt() }

    /// Tells the device that completions are polled.
    public mutating func silenceInterrupts() { driver.silenceInterrupts() }
}

/// Where a slot's descriptors lie.
@safe private struct Chain {
    /// The first descriptor.
    var descriptors: UnsafeMutablePointer<wire_virtq_desc>
    /// Its index, from which `next` counts.
    var firstIndex: Int
}

/// The place of one request.
@safe private struct Slot {
    /// Header, canary and status word of a slot.
    static let lineCount = 64
    private static let statusWordOffset = 56
    /// The bytes beside the status byte, which is the lowest of the word.
    private static let canary: UInt64 = 0x5ca1_ab1e_0ddb_a100

    let head: UInt16
    private let headerDescriptor: UnsafeMutablePointer<wire_virtq_desc>
    private let header: UnsafeMutablePointer<wire_virtio_blk_req_header>
    private let statusWord: UnsafeMutablePointer<UInt64>
    private let firstIndex: UInt16
    private var request = BlockRequest(.flush)

    init(_ memory: GuestMemory, line: UInt64, head: UInt16, chain: Chain, maximumPieces: Int) {
        self.head = head
        firstIndex = UInt16(chain.firstIndex)
        unsafe headerDescriptor = unsafe chain.descriptors
        let bytes = unsafe memory.pointer(to: line, count: Self.lineCount)
        unsafe header = bytes.assumingMemoryBound(to: wire_virtio_blk_req_header.self)
        unsafe statusWord = (bytes + Self.statusWordOffset).assumingMemoryBound(to: UInt64.self)
        unsafe headerDescriptor[0] =
            Descriptor(address: line, length: 16, flags: .next, next: firstIndex + 1).wire
        unsafe headerDescriptor[maximumPieces + 1] =
            Descriptor(address: line + UInt64(Self.statusWordOffset), length: 1, flags: .deviceWrites).wire
    }

    mutating func prepare(_ request: BlockRequest, maximumPieces: Int) {
        self.request = request
        unsafe header.pointee = wire_virtio_blk_req_header(
            type: request.kind.rawValue, reserved: 0, sector: request.sector)
        unsafe statusWord.pointee = Self.canary | UInt64(BlockStatus.notWritten.rawValue)
        let statusIndex = firstIndex + 1 + UInt16(maximumPieces)
        guard request.dataLength > 0 else {
            unsafe headerDescriptor[0].next = statusIndex
            return
        }
        precondition(request.pieces >= 1 && request.pieces <= maximumPieces, "too many descriptors")
        unsafe headerDescriptor[0].next = firstIndex + 1
        let flags: Descriptor.Flags = request.kind.deviceWritesData ? [.next, .deviceWrites] : .next
        let share = request.pieces == 1 ? request.dataLength : request.dataLength / UInt32(request.pieces)
        var address = request.dataAddress
        var rest = request.dataLength
        for piece in 1...request.pieces {
            let last = piece == request.pieces
            let length = last ? rest : share
            let next = last ? statusIndex : firstIndex + UInt16(piece) + 1
            unsafe headerDescriptor[piece] =
                Descriptor(address: address, length: length, flags: flags, next: next).wire
            address += UInt64(length)
            rest -= length
        }
    }

    func complete(usedLength: UInt32) throws(QueueViolation) -> BlockCompletion {
        let (kind, sector) = (request.kind, request.sector)
        let word = unsafe statusWord.pointee
        let status = BlockStatus(rawValue: UInt8(truncatingIfNeeded: word))
        let writable = 1 + (kind.deviceWritesData ? request.dataLength : 0)
        guard usedLength <= writable else { throw .usedLengthTooLarge(usedLength, writable: writable) }
        guard status != .notWritten else { throw .statusNotWritten(kind: kind, sector: sector) }
        let read = unsafe header.pointee
        guard word & ~0xff == Self.canary, read.type == kind.rawValue, read.sector == sector, read.reserved == 0 else {
            throw .wroteOutside(kind: kind, sector: sector)
        }
        return BlockCompletion(
            kind: kind, sector: sector, dataAddress: request.dataAddress, token: request.token, status: status,
            usedLength: usedLength)
    }
}
