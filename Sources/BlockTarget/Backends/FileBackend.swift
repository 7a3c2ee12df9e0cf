internal import CLinux
public import Glibc
public import Platform
public import Telemetry
public import Uring

/// Keeps the disk in a raw file or on a block device, through an I/O engine.
///
/// Each request has at most one operation under way, so its state between two completions is all in its slot. Short
/// transfers go on where they stopped; EAGAIN is tried again a bounded number of times; everything else the storage
/// says is the guest's I/O error, counted by kind.
public struct FileBackend<Engine: IOEngine & ~Copyable>: ~Copyable, StorageBackend {
    @usableFromInline var engine: Engine
    /// Who carries out FLUSHes in place of the engine, for a device in custody.
    @usableFromInline let flusher: Flusher?
    /// Keeps the files open; nil when somebody else does.
    private let image: DiskImage?
    @usableFromInline var bounces: BouncePool
    private let zeroes: Mapping
    @usableFromInline let meter: FaultMeter
    /// What the storage has told it cannot do; not asked again.
    private var cannotDiscardDevice = false
    private var cannotPunch = false
    private var cannotZeroRange = false

    @usableFromInline let file: Int32
    @usableFromInline let unalignedFile: Int32
    @usableFromInline let isReadOnly: Bool
    /// Bits that must be zero in offsets and lengths.
    @usableFromInline let offsetMask: UInt64
    /// Bits that must be zero in addresses.
    @usableFromInline let memoryMask: UInt

    /// How often a request is tried again after EAGAIN.
    private static var maximumAttempts: UInt16 { 64 }
    private static var zeroBytes: Int { 256 << 10 }

    /// - Throws: when there is no memory for the bounce buffers.
    /// - Parameters:
    ///   - bounceMemory: a file of `bounceBytes` that outlives this process, or nil.
    ///   - flusher: carries out FLUSHes; nil: the engine does.
    ///   - meter: counts what goes wrong.
    public init(
        _ image: DiskImage, engine: consuming Engine, bounceMemory: borrowing OwnedFD? = nil, flusher: Flusher? = nil,
        meter: consuming FaultMeter = FaultMeter(nil, loop: 0)
    ) throws(Errno) {
        try self.init(image.access, keepingOpen: image, engine, bounceMemory, flusher, meter)
    }

    /// - Parameter access: to files that stay open for as long as the backend lives.
    /// - Throws: when there is no memory for the bounce buffers.
    public init(
        _ access: ImageAccess, engine: consuming Engine, meter: consuming FaultMeter = FaultMeter(nil, loop: 0)
    ) throws(Errno) {
        try self.init(access, keepingOpen: nil, engine, nil, nil, meter)
    }

    private init(
        _ access: ImageAccess, keepingOpen image: DiskImage?, _ engine: consuming Engine,
        _ bounceMemory: borrowing OwnedFD?, _ flusher: Flusher?, _ meter: consuming FaultMeter
    ) throws(Errno) {
        let bounces = try BouncePool(memory: bounceMemory)
        let zeroes = try Mapping(anonymous: Self.zeroBytes)
        self.bounces = bounces
        self.meter = meter
        self.zeroes = zeroes
        self.engine = engine
        self.flusher = flusher
        self.image = image
        file = access.file
        unalignedFile = access.unalignedFile
        isReadOnly = access.isReadOnly
        offsetMask = UInt64(access.offsetAlignment - 1)
        memoryMask = UInt(access.memoryAlignment - 1)
        cannotDiscardDevice = !access.isBlockDevice
    }

    /// Bytes of memory for bounce buffers.
    public static var bounceBytes: Int { BouncePool.byteCount }

    public mutating func takeUp() -> Int {
        let completions = engine.takeUp()
        engine.keepOpen(file, unalignedFile)
        return completions
    }
    @inlinable
    public mutating func submit() { engine.submit() }
    @inlinable
    public mutating func nextCompletion() -> IOCompletion? {
        // First: a busy engine always has more than is taken in one turn.
        if let completion = flusher?.nextCompletion() { return completion }
        return engine.nextCompletion()
    }
    @inlinable
    public mutating func runDeferredWork() { engine.runDeferredWork() }
    @inlinable
    public mutating func releaseCompletions() {
        engine.releaseCompletions()
        bounces.recycle()
    }
    @inlinable
    public var lastIndex: UInt32 { engine.lastIndex }
    public func hadTaken(_ index: UInt32) -> Bool { engine.hadTaken(index) }
    public var faults: StorageFaults { StorageFaults(meter) }
    @inlinable
    public var queuedCount: Int { engine.queuedCount }
    public var pollDescriptors: [Int32] { [engine.pollDescriptor, flusher?.descriptor].compactMap(\.self) }

    @inlinable
    public mutating func start(_ slot: inout RequestSlot) -> BackendStep {
        switch slot.operation {
        case .read, .write: slot.isSynchronizing ? synchronize(&slot) : transferNext(&slot)
        case .flush, .identify: synchronize(&slot)
        case .discard, .writeZeroes, .writeZeroesUnmapping: rangeNext(&slot)
        }
    }

    @inlinable
    public mutating func finish(_ slot: inout RequestSlot, result: Int32) -> BackendStep {
        if result < 0 { return recover(&slot, Errno(rawValue: -result)) }
        switch slot.operation {
        case .read, .write: return slot.isSynchronizing ? .done(.ok) : finishTransfer(&slot, UInt64(result))
        case .flush, .identify: return .done(.ok)
        case .discard, .writeZeroes, .writeZeroesUnmapping: return finishRange(&slot, UInt64(result))
        }
    }

    /// Queues an operation, making room by a submit when the queue is full.
    @inlinable
    @inline(__always)
    mutating func enqueue(_ operation: IOOperation, _ slot: inout RequestSlot) -> BackendStep {
        // Each operation has a name of its own, so that a late completion is not taken for a newer one's.
        let token = slot.token &+ 1 << 32
        if !engine.enqueue(operation, token: token) {
            engine.submit()
            guard engine.enqueue(operation, token: token) else { return .stalled }
        }
        slot.token = token
        return .pending
    }

    @usableFromInline
    mutating func synchronize(_ slot: inout RequestSlot) -> BackendStep {
        if isReadOnly { return .done(.ok) }
        guard let flusher else { return enqueue(.synchronizeData(file: file), &slot) }
        slot.token &+= 1 << 32
        flusher.ask(slot.token)
        return .pendingHere
    }
}

extension FileBackend: Sendable where Engine: Sendable & ~Copyable {}

// MARK: - Reads and writes

extension FileBackend where Engine: ~Copyable {
    /// Starts the next part of a transfer: usually all of it.
    @inlinable
    @inline(__always)
    mutating func transferNext(_ slot: inout RequestSlot) -> BackendStep {
        slot.partLength = slot.remaining
        guard offsetMask != 0 else { return transfer(&slot, file) }
        if (slot.offset | slot.remaining) & offsetMask != 0 { return transfer(&slot, unalignedFile) }
        return isAligned(slot) ? transfer(&slot, file) : bounce(&slot)
    }

    @inlinable
    @inline(__always)
    mutating func transfer(_ slot: inout RequestSlot, _ file: Int32) -> BackendStep {
        if slot.operation == .read {
            let read = unsafe IOOperation.read(
                file: file, vectors: slot.vectors, count: slot.vectorCount, offset: slot.offset)
            return enqueue(read, &slot)
        }
        let write = unsafe IOOperation.write(
            file: file, vectors: slot.vectors, count: slot.vectorCount, offset: slot.offset, durable: slot.isDurable)
        return enqueue(write, &slot)
    }

    @inlinable
    @inline(__always)
    func isAligned(_ slot: borrowing RequestSlot) -> Bool {
        var bits: UInt = 0
        for index in 0..<slot.vectorCount {
            let vector = unsafe slot.vectors[index]
            bits |= UInt(bitPattern: unsafe vector.iov_base) & memoryMask
            bits |= unsafe UInt(vector.iov_len) & UInt(offsetMask)
        }
        return bits == 0
    }

    /// Carries one part over a bounce buffer.
    @usableFromInline
    mutating func bounce(_ slot: inout RequestSlot) -> BackendStep {
        if slot.bounce < 0 {
            guard let buffer = bounces.take() else { return .stalled }
            slot.bounce = buffer
        }
        slot.partLength = min(slot.remaining, UInt64(BouncePool.bufferBytes))
        meter.count(.bounce)
        let buffer = unsafe bounces.address(of: slot.bounce)
        let count = UInt32(slot.partLength)
        let step: BackendStep
        if slot.operation == .read {
            step = unsafe enqueue(.read(file: file, buffer: buffer, count: count, offset: slot.offset), &slot)
        } else {
            unsafe slot.copyVectors(buffer, count: Int(count), toGuest: false)
            let write = unsafe IOOperation.write(
                file: file, buffer: buffer, count: count, offset: slot.offset, durable: slot.isDurable)
            step = enqueue(write, &slot)
        }
        // A slot that waits for room holds no buffer, so that those that hold one always get on.
        if case .stalled = step { releaseBounce(&slot) }
        return step
    }

    @usableFromInline
    mutating func releaseBounce(_ slot: inout RequestSlot) {
        guard slot.bounce >= 0 else { return }
        bounces.retire(slot.bounce)
        slot.bounce = -1
    }

    @inlinable
    mutating func finishTransfer(_ slot: inout RequestSlot, _ count: UInt64) -> BackendStep {
        guard count > 0 else {
            meter.count(.unexpectedEnd)
            releaseBounce(&slot)
            return .done(.ioError)
        }
        let count = min(count, slot.partLength)
        if count < slot.partLength { meter.count(.shortTransfer) }
        if slot.bounce >= 0 {
            if slot.operation == .read {
                unsafe slot.copyVectors(bounces.address(of: slot.bounce), count: Int(count), toGuest: true)
            }
            releaseBounce(&slot)
        }
        if count == slot.remaining {
            guard slot.mustSynchronize, slot.operation == .write else { return .done(.ok) }
            slot.isSynchronizing = true
            return synchronize(&slot)
        }
        slot.advance(count)
        return transferNext(&slot)
    }
}

// MARK: - Ranges: DISCARD and WRITE_ZEROES

/// The ways to work on a range, in the order in which they are tried.
enum RangeMethod {
    static let device: UInt8 = 0
    static let punch: UInt8 = 1
    static let zeroRange: UInt8 = 2
    static let write: UInt8 = 3
    static let exhausted: UInt8 = 4
}

extension FileBackend where Engine: ~Copyable {
    /// Starts the next operation on the current range, or goes on to the next range.
    @usableFromInline
    mutating func rangeNext(_ slot: inout RequestSlot) -> BackendStep {
        if slot.isSynchronizing { return synchronize(&slot) }
        while slot.rangeIndex < slot.rangeCount {
            let range = unsafe slot.ranges[slot.rangeIndex]
            if range.length == 0 {
                slot.rangeIndex += 1
                continue
            }
            slot.method = possibleMethod(from: slot.method, slot.operation)
            switch slot.method {
            case RangeMethod.device:
                return enqueue(.discardDevice(file: file, offset: range.offset, length: range.length), &slot)
            case RangeMethod.punch:
                return allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range, &slot)
            case RangeMethod.zeroRange:
                return allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, range, &slot)
            case RangeMethod.write:
                return writeZeroes(range, &slot)
            default:
                return .done(.unsupported)
            }
        }
        guard slot.isDurable || slot.mustSynchronize, !isReadOnly else { return .done(.ok) }
        slot.isSynchronizing = true
        return synchronize(&slot)
    }

    /// The first method at or behind `method` that fits the operation and that the storage has not refused for good.
    private func possibleMethod(from method: UInt8, _ operation: BlockOperation) -> UInt8 {
        var method = method
        while method < RangeMethod.exhausted {
            let possible =
                switch method {
                case RangeMethod.device: operation == .discard && !cannotDiscardDevice
                case RangeMethod.punch: operation != .writeZeroes && !cannotPunch
                case RangeMethod.zeroRange: operation != .discard && !cannotZeroRange
                default: operation != .discard
                }
            if possible { return method }
            method += 1
        }
        return method
    }

    private mutating func allocate(_ mode: Int32, _ range: BlockRange, _ slot: inout RequestSlot) -> BackendStep {
        enqueue(.allocate(file: file, mode: mode, offset: range.offset, length: range.length), &slot)
    }

    /// Writes zeroes from a buffer: the last resort. `partLength` bytes of the range are under way.
    private mutating func writeZeroes(_ range: BlockRange, _ slot: inout RequestSlot) -> BackendStep {
        slot.partLength = min(range.length, UInt64(Self.zeroBytes))
        let aligned = (range.offset | slot.partLength) & offsetMask == 0
        let write = unsafe IOOperation.write(
            file: aligned ? file : unalignedFile, buffer: zeroes.base, count: UInt32(slot.partLength),
            offset: range.offset, durable: false)
        return enqueue(write, &slot)
    }

    @usableFromInline
    mutating func finishRange(_ slot: inout RequestSlot, _ count: UInt64) -> BackendStep {
        if slot.isSynchronizing { return .done(.ok) }
        if slot.method == RangeMethod.write {
            guard count > 0 else {
                meter.count(.unexpectedEnd)
                return .done(.ioError)
            }
            let count = min(count, slot.partLength)
            if count < slot.partLength { meter.count(.shortTransfer) }
            slot.rangesDone += count
            unsafe slot.ranges[slot.rangeIndex].offset += count
            unsafe slot.ranges[slot.rangeIndex].length -= count
            if unsafe slot.ranges[slot.rangeIndex].length > 0 { return rangeNext(&slot) }
        }
        slot.rangeIndex += 1
        slot.rangesDone = 0
        slot.method = RangeMethod.device
        return rangeNext(&slot)
    }
}

// MARK: - Errors

extension FileBackend where Engine: ~Copyable {
    @usableFromInline
    mutating func recover(_ slot: inout RequestSlot, _ error: Errno) -> BackendStep {
        // EBUSY: on a block device, a page of the range was being read or written through the page cache meanwhile.
        if error == .wouldBlock || error == .interrupted || error == .busy && slot.operation.worksOnRanges {
            if slot.attempts < Self.maximumAttempts {
                slot.attempts += 1
                meter.count(.retry)
                releaseBounce(&slot)
                return start(&slot)
            }
            if error == .busy, !slot.isSynchronizing, let step = goWithoutRange(&slot) { return step }
        } else if slot.operation.worksOnRanges, !slot.isSynchronizing, let step = tryNextMethod(&slot, error) {
            return step
        }
        // Our own buffers are always there: guest memory is gone, or part of it.
        if error == Errno(rawValue: EFAULT) { SharedMemoryGuard.report() }
        releaseBounce(&slot)
        switch error {
        case .noSpace, Errno(rawValue: EDQUOT):
            if mayHold(slot), meter.holdsForRoom { return .held }
            meter.count(.noSpace)
        default: meter.count(.error)
        }
        return .done(.ioError)
    }

    /// Whether a request that found no room can be carried out again later as if nothing had been.
    ///
    /// Not one whose data the kernel has taken over already: it tells once that it could not be put on stable storage,
    /// and forgets the data. Asked again, it would say that all is well.
    private func mayHold(_ slot: borrowing RequestSlot) -> Bool {
        if slot.isSynchronizing { return false }
        if slot.operation == .flush { return false }
        let isDurable = slot.isDurable
        return offsetMask != 0 || !isDurable
    }

    /// A range that never comes free: its zeroes are written like other data, which waits for nobody, and its space
    /// stays taken, as freeing it is advice. Nil when there is nothing of the kind left to do.
    private mutating func goWithoutRange(_ slot: inout RequestSlot) -> BackendStep? {
        if slot.operation == .discard { return finishRange(&slot, 0) }
        guard slot.method < RangeMethod.write else { return nil }
        slot.attempts = 0
        slot.method = RangeMethod.write
        return rangeNext(&slot)
    }

    /// A storage that cannot do it this way may do it another way. Nil when the error says something else.
    private mutating func tryNextMethod(_ slot: inout RequestSlot, _ error: Errno) -> BackendStep? {
        let unsupported = error == .notSupported || error == .noSuchCall || error == Errno(rawValue: ENOTTY)
        let misaligned = error == .invalidArgument
        guard unsupported || misaligned, slot.method < RangeMethod.write else { return nil }
        switch slot.method {
        case RangeMethod.device: cannotDiscardDevice = cannotDiscardDevice || unsupported
        case RangeMethod.punch:
            cannotPunch = cannotPunch || unsupported
            // Freeing space is advice: parts of blocks cannot be freed, and need not be.
            if misaligned, slot.operation == .discard { return finishRange(&slot, 0) }
        default: cannotZeroRange = cannotZeroRange || unsupported
        }
        slot.method += 1
        return rangeNext(&slot)
    }
}
