internal import CLinux
internal import Glibc
internal import Platform
internal import Uring

/// A file in memory below a simulated engine, what it was asked, and what goes wrong with it.
///
/// The test keeps it while an engine of it lives in a backend. An operation is *queued* by `enqueue`, *taken* by
/// `submit`, and *carried out* in one step, in the order that the test chooses: only then are buffers read and written.
/// Every byte of the file changes in `store` and nowhere else.
public final class SimulatedStorage {
    /// How many operations can be queued.
    public var queueDepth = 128
    /// Refuses this many calls of `enqueue` although there is room.
    public var refusals = 0
    /// How many operations one `submit` takes.
    public var takenPerSubmit = Int.max
    /// In which order operations are carried out.
    public var order = SimulatedOrder.oldestFirst
    /// Decides how each operation ends, when it is carried out.
    public var outcome: (SimulatedOperation, inout SeededRandom) -> SimulatedOutcome = { _, _ in .complete }

    /// The descriptor whose transfers must be aligned as `directAlignment` says, as with O_DIRECT.
    public static let directFile: Int32 = 1_000_001
    /// The descriptor of the same file that takes any transfer.
    public static let bufferedFile: Int32 = 1_000_002
    /// What transfers on `directFile` must be multiples of: offset and lengths, and addresses.
    public var directAlignment = (offset: 1, memory: 1)
    /// What offset and length of `allocate` and `discardDevice` must be multiples of, as a block device asks.
    public var rangeAlignment = 1

    /// Everything carried out, in order.
    public private(set) var history: [SimulatedOperation] = []
    /// Operations taken and not yet carried out, oldest first.
    public var taken: [SimulatedOperation] { moment.taken }
    /// Operations that reached behind the end of the file, or a descriptor that is none: what no backend may ask for.
    public private(set) var absurdities = 0

    /// The file and what is under way: all of a storage that matters to what happens next.
    struct Moment {
        var bytes: [UInt8]
        var random: SeededRandom
        var queued: [(IOOperation, UInt64)] = []
        var taken: [SimulatedOperation] = []
        var completions: [IOCompletion] = []
        /// Of those, so many have been taken and not let go of.
        var seen = 0
        /// How many operations have been taken.
        var head: UInt32 = 0
    }
    private var moment: Moment

    /// The engine outlives who submits, as a kernel ring in custody does: operations that were taken go on, and
    /// completions stay until they are let go of.
    public var isInCustody = false
    /// How many operations had been taken when the engine was taken up.
    private var adoptedHead: UInt32 = 0

    public init(bytes: [UInt8], seed: UInt64 = 1) {
        moment = Moment(bytes: bytes, random: SeededRandom(seed: seed))
    }

    /// The file.
    public var contents: [UInt8] { moment.bytes }

    /// What an engine has queued and the storage has not taken.
    public var queuedCount: Int { moment.queued.count }

    /// Forgets what was carried out.
    public func clearHistory() { history = [] }

    /// Carries out the operation at `index` of `taken`.
    public func carryOut(at index: Int) {
        let operation = moment.taken.remove(at: index)
        history.append(operation)
        moment.completions.append(IOCompletion(token: operation.token, result: result(of: operation)))
    }

    /// Delivers a completion that belongs to nothing.
    public func deliver(token: UInt64, result: Int32) {
        moment.completions.append(IOCompletion(token: token, result: result))
    }

    func enqueue(_ operation: IOOperation, token: UInt64) -> Bool {
        if refusals > 0 {
            refusals -= 1
            return false
        }
        guard moment.queued.count < queueDepth else { return false }
        moment.queued.append((operation, token))
        return true
    }

    /// - Parameter limit: operations to take at most.
    func submit(atMost limit: Int = .max) {
        let count = min(moment.queued.count, takenPerSubmit, limit)
        moment.head &+= UInt32(count)
        for (operation, token) in moment.queued.prefix(count) { moment.taken.append(Self.copy(operation, token)) }
        moment.queued.removeFirst(count)
    }

    func nextCompletion() -> IOCompletion? {
        if moment.completions.isEmpty, !taken.isEmpty {
            switch order {
            case .oldestFirst: carryOut(at: 0)
            case .newestFirst: carryOut(at: taken.count - 1)
            case .random: carryOut(at: moment.random.below(taken.count))
            case .held: break
            }
        }
        guard isInCustody else { return moment.completions.isEmpty ? nil : moment.completions.removeFirst() }
        guard hasUnseenCompletions else { return nil }
        defer { moment.seen += 1 }
        return moment.completions[moment.seen]
    }

    private static func copy(_ operation: IOOperation, _ token: UInt64) -> SimulatedOperation {
        var buffers: [SimulatedBuffer] = []
        var length = operation.length
        switch operation.kind {
        case .read, .write:
            length = UInt64(operation.count)
            unsafe buffers.append(SimulatedBuffer(base: operation.buffer!, count: Int(operation.count)))
        case .readVectors, .writeVectors:
            let count = Int(operation.count)
            let table = unsafe operation.buffer!.bindMemory(to: iovec.self, capacity: count)
            for index in 0..<count {
                let vector = unsafe table[index]
                unsafe buffers.append(SimulatedBuffer(base: vector.iov_base, count: vector.iov_len))
                unsafe length += UInt64(vector.iov_len)
            }
        default: break
        }
        return SimulatedOperation(
            token: token, kind: operation.kind, file: operation.file, offset: operation.offset, length: length,
            flags: operation.flags, buffers: buffers)
    }
}

// MARK: - The death of who submitted

extension SimulatedStorage {
    /// What outlives a process that submits: the file, and the operations that the kernel has taken from it.
    struct Remains {
        fileprivate var moment: Moment
        /// Queued: taken only if death comes within the call that submits.
        fileprivate var entering: [SimulatedOperation]
    }

    /// What would be left if the process that submits died now. Buffers of operations must stay where they are.
    var remains: Remains {
        var kept = moment
        kept.queued = []
        if isInCustody { return Remains(moment: kept, entering: []) }
        kept.completions = []
        return Remains(moment: kept, entering: moment.queued.map { Self.copy($0.0, $0.1) })
    }

    /// Goes back to such a moment and lets the kernel end what it had taken: each operation in full, short or not at
    /// all, in any order, and nobody is told.
    func outlive(_ remains: Remains, seed: UInt64) {
        moment = remains.moment
        moment.random = SeededRandom(seed: seed)
        var left = moment.taken + remains.entering.prefix(moment.random.below(remains.entering.count + 1))
        moment.taken = []
        let allComplete = moment.random.happens(1, in: 4)
        while !left.isEmpty {
            let operation = left.remove(at: moment.random.below(left.count))
            switch allComplete ? 0 : moment.random.below(3) {
            case 0: _ = carriedOut(operation, operation.length)
            case 1 where operation.isTransfer:
                // The smallest unit of a disk is written whole.
                _ = carriedOut(operation, UInt64(512 * moment.random.below(Int(operation.length / 512))))
            default: break
            }
        }
    }
}

// MARK: - In custody

extension SimulatedStorage {
    var hasUnseenCompletions: Bool { moment.seen < moment.completions.count }

    /// Another process goes on with the engine: what was queued and not taken is dropped, what was not let go of comes
    /// again.
    func takeUp() -> Int {
        moment.queued = []
        moment.seen = 0
        adoptedHead = moment.head
        return moment.completions.count
    }

    func releaseCompletions() {
        moment.completions.removeFirst(moment.seen)
        moment.seen = 0
    }

    /// Of the operation that was queued last.
    var lastIndex: UInt32 { moment.head &+ UInt32(moment.queued.count) &- 1 }

    func hadTaken(_ index: UInt32) -> Bool { Int32(bitPattern: index &- adoptedHead) < 0 }

    /// Goes back to a moment of a process that has died. Operations that were taken go on: some end now, in full or
    /// short, some fail because of the death, some end when another process is there.
    ///
    /// - Returns: how often the file was made durable meanwhile.
    func goOn(from remains: Remains, seed: UInt64) -> Int {
        moment = remains.moment
        moment.random = SeededRandom(seed: seed)
        var synchronized = 0
        let share = moment.random.below(4)
        for _ in 0..<moment.taken.count where moment.random.below(3) < share {
            let operation = moment.taken.remove(at: moment.random.below(moment.taken.count))
            let result: Int32
            switch moment.random.below(4) {
            case 0: result = moment.random.happens(1, in: 2) ? -ECANCELED : -EINTR
            case 1 where operation.isTransfer:
                result = carriedOut(operation, UInt64(512 * moment.random.below(Int(operation.length / 512))))
            default: result = carriedOut(operation, operation.length)
            }
            if operation.kind == .synchronizeData, result == 0 { synchronized += 1 }
            moment.completions.append(IOCompletion(token: operation.token, result: result))
        }
        return synchronized
    }
}

// MARK: - Carrying out

extension SimulatedStorage {
    private func result(of operation: SimulatedOperation) -> Int32 {
        var limit = operation.length
        switch outcome(operation, &moment.random) {
        case .complete: break
        case .fails(let error): return -error.rawValue
        case .short(let count): limit = min(limit, count)
        case .endOfFile: limit = 0
        }
        return carriedOut(operation, limit)
    }

    /// - Parameter limit: bytes that a transfer moves at most.
    private func carriedOut(_ operation: SimulatedOperation, _ limit: UInt64) -> Int32 {
        guard operation.file == Self.directFile || operation.file == Self.bufferedFile else {
            absurdities += 1
            return -EBADF
        }
        switch operation.kind {
        case .synchronizeData, .synchronize: return 0
        case .unlink, .rename, .makeDirectory, .symlink, .link, .makeFile: return -ENOTDIR
        case .allocate, .discardDevice: return clear(operation)
        case .updateFiles, .installFile: return -EINVAL
        case .receive, .send: return -ENOTSOCK
        case .read, .readVectors, .write, .writeVectors: return transfer(operation, limit)
        }
    }

    private func isAligned(_ operation: SimulatedOperation) -> Bool {
        guard operation.file == Self.directFile else { return true }
        guard operation.offset % UInt64(directAlignment.offset) == 0 else { return false }
        return operation.buffers.allSatisfy {
            $0.isAligned(address: directAlignment.memory, length: directAlignment.offset)
        }
    }

    private func transfer(_ operation: SimulatedOperation, _ limit: UInt64) -> Int32 {
        guard isAligned(operation) else { return -EINVAL }
        let end = UInt64(moment.bytes.count)
        if operation.isWrite, operation.offset > end || operation.length > end - operation.offset {
            absurdities += 1
            return -EFBIG
        }
        // The kernel moves no more than this at once (MAX_RW_COUNT).
        let most = min(limit, operation.offset < end ? end - operation.offset : 0, 0x7fff_f000)
        var position = Int(clamping: operation.offset)
        var rest = Int(most)
        for buffer in operation.buffers where rest > 0 {
            let part = min(rest, buffer.count)
            if operation.isWrite {
                store(buffer.bytes(part), at: position)
            } else {
                buffer.set(moment.bytes[position..<position + part])
            }
            position += part
            rest -= part
        }
        return Int32(most)
    }

    private func clear(_ operation: SimulatedOperation) -> Int32 {
        let alignment = UInt64(rangeAlignment)
        guard operation.length > 0, operation.offset % alignment == 0, operation.length % alignment == 0 else {
            return -EINVAL
        }
        let keepSize = UInt32(FALLOC_FL_KEEP_SIZE)
        let modes = [UInt32(FALLOC_FL_PUNCH_HOLE) | keepSize, UInt32(FALLOC_FL_ZERO_RANGE) | keepSize]
        guard operation.kind == .discardDevice || modes.contains(operation.flags) else { return -EOPNOTSUPP }
        let end = UInt64(moment.bytes.count)
        guard operation.offset <= end, operation.length <= end - operation.offset else {
            absurdities += 1
            return -EFBIG
        }
        store([UInt8](repeating: 0, count: Int(operation.length)), at: Int(operation.offset))
        return 0
    }

    private func store(_ new: [UInt8], at position: Int) {
        moment.bytes.replaceSubrange(position..<position + new.count, with: new)
    }
}
