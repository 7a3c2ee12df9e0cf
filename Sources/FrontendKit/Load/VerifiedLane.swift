/// A request of a verifying load, from plan to end.
struct LoadRequest {
    var operation: LoadOperation
    var sectors: Range<UInt64>
    /// Number among all that change the disk; 0 for those that do not.
    var sequence: UInt64 = 0
    var queue: UInt64 = 0
    /// When, by the model's clock.
    var readStarted: UInt64 = 0
    /// When, in nanoseconds.
    var submitted: UInt64 = 0
    /// Which buffer it has.
    var slot = 0
    /// How many bytes of it are used.
    var length = 0
}

/// A queue of a verifying load, its buffers, and what is in flight on it.
///
/// Around each buffer lie guard bytes, and a buffer that is read into is marked first: a device that writes beside it,
/// or not at all, is found out.
@safe struct VerifiedLane: ~Copyable {
    var queue: BlockQueue
    private var requests: [LoadRequest]
    private var freeSlots: [Int]
    private let bufferSize: Int
    private let buffers: UInt64
    private let bytes: UnsafeMutableRawPointer
    private let maximumSegments: Int

    private static let guardWord: UInt64 = 0xa5a5_a5a5_a5a5_a5a5
    private static let guardWords = 8
    /// What the first word of each sector of a buffer holds before a read.
    private static let unreadWord: UInt64 = 0xdead_0000_beef_0000
    private static let gap = VerifiedLoad.Options.bufferGap

    init(
        _ endpoint: QueueEndpoint, usesEventIndex: Bool, options: VerifiedLoad.Options,
        in allocator: inout GuestAllocator
    ) {
        let driver = DriverQueue(endpoint, usesEventIndex: usesEventIndex)
        queue = BlockQueue(
            driver, depth: options.depth, layout: options.chainLayout, maximumPieces: options.maximumPieces,
            in: &allocator)
        requests = Array(repeating: LoadRequest(operation: .flush, sectors: 0..<0), count: options.depth)
        freeSlots = Array((0..<options.depth).reversed())
        maximumSegments = options.maximumSegments
        // A gap in front of each buffer, and one behind the last.
        bufferSize = (options.maximumBytes + Self.gap - 1) / Self.gap * Self.gap
        let count = options.depth * (bufferSize + Self.gap) + Self.gap
        buffers = allocator.allocate(count, alignment: Self.gap)
        unsafe bytes = endpoint.memory.pointer(to: buffers, count: count)
        for slot in 0...options.depth {
            let gap = unsafe (bytes + slot * (bufferSize + Self.gap)).assumingMemoryBound(to: UInt64.self)
            unsafe gap.initialize(repeating: Self.guardWord, count: Self.gap / 8)
        }
    }

    var hasRoom: Bool { !freeSlots.isEmpty && queue.hasRoom }

    /// Lays out a request and stages it.
    mutating func submit(_ request: LoadRequest, seed: UInt64, random: inout SeededGenerator) {
        let slot = freeSlots.removeLast()
        requests[slot] = request
        requests[slot].slot = slot
        let length: Int
        switch request.operation {
        case .flush:
            length = 0
        case .read:
            length = request.sectors.count * 512
            for offset in 0..<request.sectors.count {
                unsafe (buffer(slot) + offset * 512).storeBytes(of: Self.unreadWord, as: UInt64.self)
            }
        case .write:
            length = request.sectors.count * 512
            for (offset, sector) in request.sectors.enumerated() {
                let stamp = SectorStamp(seed: seed, sector: sector, sequence: request.sequence, queue: request.queue)
                unsafe stamp.write(to: buffer(slot) + offset * 512)
            }
        case .discard, .writeZeroes:
            length = layOutSegments(request, slot, random: &random)
        }
        requests[slot].length = length
        unsafe (buffer(slot) + length).initializeMemory(
            as: UInt64.self, repeating: Self.guardWord, count: Self.guardWords)
        let hasSector = request.operation == .read || request.operation == .write
        let most = min(queue.maximumPieces, max(1, length / 16))
        queue.submit(
            BlockRequest(
                request.operation.requestKind, sector: hasSector ? request.sectors.lowerBound : 0,
                dataAddress: buffers + UInt64(offset(of: slot)), dataLength: UInt32(length),
                pieces: 1 + Int(random.next(below: UInt64(most))), token: UInt64(slot)))
    }

    /// Writes a request's range as one segment or several, in order; returns their length in bytes.
    private borrowing func layOutSegments(
        _ request: LoadRequest, _ slot: Int, random: inout SeededGenerator
    ) -> Int {
        let sectorCount = UInt32(request.sectors.count)
        let most = min(UInt64(maximumSegments), UInt64(sectorCount))
        let count = 1 + UInt32(random.next(below: most))
        var segments: [BlockSegment] = []
        var first = request.sectors.lowerBound
        for index in 0..<count {
            let end = request.sectors.lowerBound + UInt64(sectorCount * (index + 1) / count)
            segments.append(BlockSegment(sector: first, sectorCount: UInt32(end - first)))
            first = end
        }
        let data = BlockSegment.bytes(of: segments)
        unsafe UnsafeMutableRawBufferPointer(start: buffer(slot), count: data.count).copyBytes(from: data)
        return data.count
    }

    /// Takes the next completion and checks that the device has kept to its buffer; nil when there is none.
    mutating func nextCompletion(seed: UInt64) throws(QueueViolation) -> (LoadRequest, BlockCompletion)? {
        guard let completion = try queue.nextCompletion() else { return nil }
        let slot = Int(completion.token)
        let request = requests[slot]
        freeSlots.append(slot)
        guard guardsAreIntact(request), request.operation != .write || isUnchanged(request, seed: seed) else {
            throw .wroteOutside(kind: completion.kind, sector: completion.sector)
        }
        return (request, completion)
    }

    /// What a sector of a request's buffer holds; nil when the device did not write it. Valid until the next `submit`.
    borrowing func sector(_ offset: Int, of request: LoadRequest) -> SectorContent? {
        let start = unsafe buffer(request.slot) + offset * 512
        guard unsafe start.load(as: UInt64.self) != Self.unreadWord else { return nil }
        return unsafe SectorStamp.read(from: start)
    }

    /// Which write a sector was of that lay in a request's buffer before the device should have written it: it tells a
    /// buffer that was left alone from one whose mark went to the disk and came back.
    borrowing func former(_ offset: Int, of request: LoadRequest) -> String {
        let words = unsafe (buffer(request.slot) + offset * 512).assumingMemoryBound(to: UInt64.self)
        return unsafe "sector \(words[1]), write \(words[2])"
    }

    private borrowing func isUnchanged(_ request: LoadRequest, seed: UInt64) -> Bool {
        request.sectors.enumerated().allSatisfy { offset, sector in
            sectorContent(offset, request.slot)
                == .stamp(
                    SectorStamp(seed: seed, sector: sector, sequence: request.sequence, queue: request.queue))
        }
    }

    private borrowing func sectorContent(_ offset: Int, _ slot: Int) -> SectorContent {
        unsafe SectorStamp.read(from: buffer(slot) + offset * 512)
    }

    private borrowing func guardsAreIntact(_ request: LoadRequest) -> Bool {
        let start = unsafe buffer(request.slot)
        let before = unsafe (start - Self.guardWords * 8).assumingMemoryBound(to: UInt64.self)
        let behind = unsafe (start + request.length).assumingMemoryBound(to: UInt64.self)
        for index in 0..<Self.guardWords {
            if unsafe before[index] != Self.guardWord || behind[index] != Self.guardWord { return false }
        }
        return true
    }

    private borrowing func offset(of slot: Int) -> Int { slot * (bufferSize + Self.gap) + Self.gap }

    private borrowing func buffer(_ slot: Int) -> UnsafeMutableRawPointer { unsafe bytes + offset(of: slot) }
}
