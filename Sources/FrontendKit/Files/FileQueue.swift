internal import CWire
internal import Platform

/// A virtqueue of FUSE requests, many in flight. Virtio 1.2, section 5.11.6.
///
/// Each request takes a slot, with guest memory of its own and a chain that was laid out beforehand: header, arguments,
/// data to write; header of the reply, what follows it. A request is made in three steps: `reserve`, fill the slot's
/// arguments and data, `submit`. When it has completed, the slot is the caller's until `release`. Nothing is allocated
/// after `init`. What comes back is checked: see `FileViolation`.
@safe public struct FileQueue: ~Copyable, @unchecked Sendable {
    /// How much room slots have.
    public struct Layout: Hashable, Sendable {
        /// Requests in flight at most.
        public var depth: Int
        /// Bytes of arguments, names included.
        public var argumentCapacity: Int
        /// Bytes of data, written or read.
        public var dataCapacity: Int
        /// Data is spread over descriptors of so many bytes, as a kernel's pages are; nil: one descriptor.
        public var pieceSize: Int?
        /// Chains lie in tables (VIRTIO_F_INDIRECT_DESC), as Linux has them.
        public var isIndirect: Bool

        public init(
            depth: Int = 1, argumentCapacity: Int = 8192, dataCapacity: Int = 1 << 20, pieceSize: Int? = nil,
            isIndirect: Bool = true
        ) {
            self.depth = depth
            self.argumentCapacity = argumentCapacity
            self.dataCapacity = dataCapacity
            self.pieceSize = pieceSize
            self.isIndirect = isIndirect
        }

        /// Descriptors of the longest chain.
        var chainCount: Int { 4 + dataPieces }
        var dataPieces: Int { pieceSize.map { (dataCapacity + $0 - 1) / $0 } ?? 1 }
        /// Descriptors of the ring that the queue takes.
        public var ringCount: Int { depth * (isIndirect ? 1 : chainCount) }

        fileprivate var slotSize: Int {
            let head = FileQueue.dataStart(argumentCapacity: argumentCapacity)
            return (head + dataCapacity + FileQueue.guardCount + 4095) & ~4095
        }

        /// Bytes of guest memory that a queue takes, its ring not included.
        public var memoryNeeded: Int { depth * (slotSize + 2 * 16 * chainCount + 64) + 8192 }
    }

    /// The most bytes of an answer that lies beside the header of its reply: what CREATE answers fits in.
    public static let smallAnswer = 288

    private static let headerCount = MemoryLayout<wire_fuse_in_header>.size
    private static let replyHeaderCount = MemoryLayout<wire_fuse_out_header>.size
    /// Of a slot: the request's header (a cache line), the reply's header and small answer, guard, arguments, data.
    private static let replyOffset = 64
    private static let argumentOffset = 64 + 16 + smallAnswer + 16
    fileprivate static let guardCount = 8
    private static let guardWord: UInt64 = 0xa5a5_5a5a_a5a5_5a5a

    fileprivate static func dataStart(argumentCapacity: Int) -> Int {
        (argumentOffset + argumentCapacity + 4095) & ~4095
    }

    public private(set) var driver: DriverQueue
    public let layout: Layout
    private let slots: UnsafeMutablePointer<FileSlot>
    private let freeSlots: UnsafeMutablePointer<UInt16>
    private var freeCount: Int
    private let slotOfHead: UnsafeMutablePointer<UInt16>
    /// Numbers requests; even, as Linux has them: the odd one after it is the interrupt of the same request.
    private var nextUnique: UInt64
    private let dataStart: Int

    /// - Parameters:
    ///   - firstUnique: where the numbers of requests begin; those of different queues of a session must not meet.
    ///   - allocator: guest memory for `layout.memoryNeeded` bytes.
    public init(
        _ driver: consuming DriverQueue, layout: Layout, firstUnique: UInt64, in allocator: inout GuestAllocator
    ) {
        precondition(layout.depth > 0 && layout.ringCount <= driver.size, "the ring is too small")
        precondition(firstUnique % 2 == 0 && firstUnique > 0, "a request has an even number")
        self.layout = layout
        nextUnique = firstUnique
        dataStart = Self.dataStart(argumentCapacity: layout.argumentCapacity)
        unsafe slots = .allocate(capacity: layout.depth)
        unsafe freeSlots = .allocate(capacity: layout.depth)
        unsafe slotOfHead = .allocate(capacity: driver.size)
        unsafe slotOfHead.initialize(repeating: 0, count: driver.size)
        let start = allocator.allocate(layout.depth * layout.slotSize, alignment: 4096)
        for index in 0..<layout.depth {
            let address = start + UInt64(index * layout.slotSize)
            let bytes = unsafe driver.endpoint.memory.pointer(to: address, count: layout.slotSize)
            let head = index * (layout.isIndirect ? 1 : layout.chainCount)
            let table: UInt64? = layout.isIndirect ? allocator.allocate(2 * 16 * layout.chainCount) : nil
            let chain: UnsafeMutablePointer<wire_virtq_desc>
            if let table {
                unsafe chain = driver.endpoint.memory.pointer(to: table, count: 2 * 16 * layout.chainCount)
                    .assumingMemoryBound(to: wire_virtq_desc.self)
            } else {
                unsafe chain = driver.laidOut(at: head)
            }
            unsafe (slots + index).initialize(
                to: FileSlot(
                    bytes: bytes, address: address, head: UInt16(head), chain: chain, table: table,
                    firstIndex: table == nil ? UInt16(head) : 0))
            unsafe (freeSlots + index).initialize(to: UInt16(layout.depth - 1 - index))
            unsafe slotOfHead[head] = UInt16(index)
        }
        freeCount = layout.depth
        self.driver = driver
    }

    deinit {
        unsafe slots.deallocate()
        unsafe freeSlots.deallocate()
        unsafe slotOfHead.deallocate()
    }

    // MARK: Making a request

    /// Whether a slot may be reserved.
    public var hasRoom: Bool { freeCount > 0 && driver.hasRoom }

    /// Slots that are not free: in flight, being filled, or completed and not given back.
    public var outstanding: Int { layout.depth - freeCount }

    /// Takes a free slot.
    public mutating func reserve() -> Int {
        precondition(freeCount > 0, "the queue is full")
        freeCount -= 1
        return unsafe Int(freeSlots[freeCount])
    }

    /// Gives a slot back.
    public mutating func release(_ slot: Int) {
        precondition(freeCount < layout.depth && slot >= 0 && slot < layout.depth, "no such slot")
        unsafe freeSlots[freeCount] = UInt16(slot)
        freeCount += 1
    }

    /// Where a slot's arguments lie.
    @unsafe public func arguments(_ slot: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            start: slots[slot].bytes + Self.argumentOffset, count: layout.argumentCapacity)
    }

    /// Where a slot's data lies, page-aligned.
    @unsafe public func data(_ slot: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(start: slots[slot].bytes + dataStart, count: layout.dataCapacity)
    }

    /// Lays out a request and stages it; `publish` shows it to the device.
    ///
    /// - Returns: its number (`unique`).
    @discardableResult
    public mutating func submit(_ call: FileCall, in slot: Int) -> UInt64 {
        precondition(
            call.argumentCount <= layout.argumentCapacity && call.dataCount <= layout.dataCapacity,
            "the slot is too small")
        let unique = nextUnique
        nextUnique += 2
        unsafe slots[slot].call = call
        unsafe slots[slot].unique = unique
        let bytes = unsafe slots[slot].bytes
        unsafe bytes.storeBytes(
            of: wire_fuse_in_header(
                len: UInt32(Self.headerCount + call.argumentCount + call.dataCount), opcode: call.opcode.rawValue,
                unique: unique, nodeid: call.node, uid: call.caller.user, gid: call.caller.group,
                pid: call.caller.process, total_extlen: 0, padding: 0), as: wire_fuse_in_header.self)
        unsafe (bytes + Self.replyOffset).storeBytes(
            of: wire_fuse_out_header(len: 0, error: 0, unique: 0), as: wire_fuse_out_header.self)
        let count = layOutChain(call, slot)
        if let table = unsafe slots[slot].table {
            driver.write(
                Descriptor(address: table, length: UInt32(16 * count), flags: .indirect),
                at: unsafe Int(slots[slot].head))
        }
        driver.stage(head: unsafe Int(slots[slot].head))
        return unique
    }

    /// Shows the device everything that was submitted, and kicks it if it wants that.
    public mutating func publish() {
        driver.publish()
        driver.kick()
    }

    /// Writes the descriptors of a request; returns how many.
    private mutating func layOutChain(_ call: FileCall, _ slot: Int) -> Int {
        let address = unsafe slots[slot].address
        var chain = unsafe ChainWriter(slots[slot])
        chain.append(address, Self.headerCount, [])
        chain.append(address + UInt64(Self.argumentOffset), call.argumentCount, [])
        chain.append(address + UInt64(dataStart), call.dataCount, [], pieces: layout.pieceSize)
        let (reply, data) = (address + UInt64(Self.replyOffset), address + UInt64(dataStart))
        switch call.answer {
        case .never: break
        case .small(let count):
            precondition(count <= Self.smallAnswer, "the answer is not small")
            chain.append(reply, Self.replyHeaderCount, .deviceWrites)
            chain.append(reply + 16, count, .deviceWrites)
            unsafe slots[slot].setGuard(at: Self.replyOffset + 16 + count, Self.guardWord)
        case .data(let count):
            precondition(call.dataCount == 0 && count <= layout.dataCapacity, "there is no room for the answer")
            chain.append(reply, Self.replyHeaderCount, .deviceWrites)
            chain.append(data, count, .deviceWrites, pieces: layout.pieceSize)
            unsafe slots[slot].setGuard(at: dataStart + count, Self.guardWord)
        }
        return chain.finish()
    }

    // MARK: Taking completions

    /// Takes the next completion, or nil when there is none.
    ///
    /// - Throws: what the device did wrong; the queue is unusable then.
    public mutating func nextCompletion() throws(FileViolation) -> FileCompletion? {
        let used: UsedElement
        do throws(QueueViolation) {
            guard let element = try driver.nextCompletion() else { return nil }
            used = element
        } catch {
            throw .queue(error)
        }
        let slot = unsafe Int(slotOfHead[used.head])
        return try complete(slot, used: used.length)
    }

    private borrowing func complete(_ slot: Int, used: UInt32) throws(FileViolation) -> FileCompletion {
        let call = unsafe slots[slot].call
        var completion = FileCompletion(slot: slot, opcode: call.opcode, token: call.token, error: nil, count: 0)
        let room: Int
        switch call.answer {
        case .never:
            guard used == 0 else { throw .unasked(call.opcode) }
            return completion
        case .small(let count):
            room = count
            guard unsafe slots[slot].hasGuard(at: Self.replyOffset + 16 + count, Self.guardWord) else {
                throw .wroteOutside(call.opcode)
            }
        case .data(let count):
            room = count
            guard unsafe slots[slot].hasGuard(at: dataStart + count, Self.guardWord) else {
                throw .wroteOutside(call.opcode)
            }
        }
        let header = unsafe (slots[slot].bytes + Self.replyOffset).loadUnaligned(as: wire_fuse_out_header.self)
        let least = UInt32(Self.replyHeaderCount)
        guard header.len >= least, header.len <= least + UInt32(room), header.len == used else {
            throw .length(call.opcode, said: header.len, used: used)
        }
        let unique = unsafe slots[slot].unique
        guard header.unique == unique else {
            throw .unique(call.opcode, expected: unique, found: header.unique)
        }
        guard header.error <= 0, header.error > -4096, header.error == 0 || header.len == least else {
            throw .error(call.opcode, header.error)
        }
        if header.error < 0 { completion.error = Errno(rawValue: -header.error) }
        completion.count = Int(header.len - least)
        return completion
    }

    /// The answer to a completed request, behind its header. Valid until its slot is given back.
    @unsafe public borrowing func answer(_ completion: FileCompletion) -> UnsafeRawBufferPointer {
        let slot = unsafe slots[completion.slot]
        let offset =
            if case .data = slot.call.answer { dataStart } else { Self.replyOffset + Self.replyHeaderCount }
        return unsafe UnsafeRawBufferPointer(start: slot.bytes + offset, count: completion.count)
    }

    /// Waits for a completion by interrupt; false when nothing came in time.
    public mutating func waitForCompletion(milliseconds: Int32) -> Bool {
        driver.waitForCompletion(milliseconds: milliseconds)
    }

    /// Asks for an interrupt at the next completion; false when one is there already.
    public mutating func requestInterrupt() -> Bool { driver.requestInterrupt() }

    /// Tells the device that completions are polled.
    public mutating func silenceInterrupts() { driver.silenceInterrupts() }

    /// Whether a completion waits to be taken.
    public var hasCompletion: Bool { driver.hasCompletion }
}

/// The place of one request.
@safe private struct FileSlot {
    let bytes: UnsafeMutableRawPointer
    let address: UInt64
    let head: UInt16
    let chain: UnsafeMutablePointer<wire_virtq_desc>
    /// Guest address of the table that `chain` is; nil when it lies in the ring.
    let table: UInt64?
    /// Index of the first descriptor, from which `next` counts.
    let firstIndex: UInt16
    var call = FileCall(.lookup, node: 0)
    var unique: UInt64 = 0

    func setGuard(at offset: Int, _ word: UInt64) {
        unsafe (bytes + offset).storeBytes(of: word, as: UInt64.self)
    }

    func hasGuard(at offset: Int, _ word: UInt64) -> Bool {
        unsafe (bytes + offset).loadUnaligned(as: UInt64.self) == word
    }
}

/// Writes a chain, one descriptor after the other.
@safe private struct ChainWriter {
    private let chain: UnsafeMutablePointer<wire_virtq_desc>
    private let firstIndex: UInt16
    private var count = 0

    init(_ slot: FileSlot) {
        unsafe chain = unsafe slot.chain
        firstIndex = slot.firstIndex
    }

    /// Appends a range of guest memory; none if it is empty.
    mutating func append(_ address: UInt64, _ length: Int, _ flags: Descriptor.Flags, pieces: Int? = nil) {
        var done = 0
        while done < length {
            let part = min(length - done, pieces ?? length)
            let descriptor = Descriptor(
                address: address + UInt64(done), length: UInt32(part), flags: flags.union(.next),
                next: firstIndex + UInt16(count + 1))
            unsafe chain[count] = descriptor.wire
            count += 1
            done += part
        }
    }

    /// The last one is the end; returns how many there are.
    func finish() -> Int {
        unsafe chain[count - 1].flags &= ~Descriptor.Flags.next.rawValue
        return count
    }
}
