internal import CWire
public import Custody
internal import Glibc
public import Platform
public import Uring
public import Virtio

/// A FUSE server for one loop: reads requests, checks them, has the file system carry them out, and writes answers.
///
/// Everything that a driver has written is copied into memory of the server, once; the copy is checked, the copy is
/// used. Data of READ and WRITE goes between the file and the driver's buffers without a copy. After `init` nothing
/// here allocates.
@safe public struct FuseServer<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>: ~Copyable {
    public var files: Files
    @usableFromInline var engine: Engine
    private let description: ShareDescription
    private let scratch: Mapping

    /// The longest request but for WRITE's data: SETXATTR with 64 KiB, or a BATCH_FORGET of 8000 nodes.
    static var scratchBytes: Int { 132 << 10 }

    /// - Throws: when there is no memory.
    public init(
        _ description: ShareDescription, _ files: consuming Files, engine: consuming Engine
    ) throws(Errno) {
        scratch = try Mapping(anonymous: Self.scratchBytes)
        self.files = files
        self.engine = engine
        self.description = description
        self.files.register(&self.engine)
    }

    // MARK: The engine

    public mutating func takeUp() -> Int { engine.takeUp() }
    @inlinable public mutating func submit() { engine.submit() }
    @inlinable public mutating func nextCompletion() -> IOCompletion? { engine.nextCompletion() }
    @inlinable public mutating func runDeferredWork() { engine.runDeferredWork() }
    @inlinable public mutating func releaseCompletions() { engine.releaseCompletions() }
    @inlinable public var lastIndex: UInt32 { engine.lastIndex }
    @inlinable public func hadTaken(_ index: UInt32) -> Bool { engine.hadTaken(index) }
    @inlinable public var queuedCount: Int { engine.queuedCount }
    public var pollDescriptor: Int32? { engine.pollDescriptor }
    /// Before the loop sleeps, and now and then while it does not.
    public mutating func tidy() { files.tidy() }

    // MARK: Requests

    /// Reads a request and carries it out, or starts it.
    ///
    /// - Parameter segments: its buffers; their storage is the request's (`emptySegments`).
    public mutating func begin(_ request: inout FuseRequest, _ segments: SegmentList) -> FuseStep {
        begin(&request, segments, adopting: nil)
    }

    /// Reads a request anew and carries it out without the engine, as far as that is possible.
    mutating func restart(_ request: inout FuseRequest, _ segments: SegmentList) -> FuseStep {
        begin(&request, segments, adopting: nil, avoidsEngine: true)
    }

    /// Goes on with a request that a worker before had started, whose operation has completed.
    ///
    /// An error says nothing: it may be due to the death of that worker. Such a request is carried out anew. But one of
    /// a synchronisation is told: the kernel tells an open file once that data could not be written, and forgets it.
    ///
    /// - Parameters:
    ///   - progress: as `FuseRequest.progress` gave it for that operation.
    ///   - result: of the operation.
    public mutating func finishAdopted(
        _ request: inout FuseRequest, _ segments: SegmentList, _ progress: RequestProgress, result: Int32
    ) -> FuseStep {
        let isOfDeath = result == -ECANCELED || result == -EINTR || result == -EAGAIN
        if result < 0, !isOfDeath, progress.state == UInt64(Stage.synchronizing.rawValue) {
            return refuse(&request, segments, Errno(rawValue: -result))
        }
        return begin(
            &request, segments,
            adopting: result < 0 ? nil : Adoption(done: progress.done, stage: progress.state, result: result))
    }

    private mutating func begin(
        _ request: inout FuseRequest, _ segments: SegmentList, adopting adoption: Adoption?,
        avoidsEngine: Bool = false
    ) -> FuseStep {
        request.take(segments)
        request.avoidsEngine = avoidsEngine
        request.isForeign = adoption != nil
        request.unique = 0
        var header = wire_fuse_in_header()
        let headerBytes = MemoryLayout<wire_fuse_in_header>.size
        guard segments.readableBytes >= UInt64(headerBytes) else { return .done(written: 0) }
        unsafe withUnsafeMutableBytes(of: &header) { unsafe segments.copyReadable(from: 0, to: $0) }
        request.unique = header.unique
        request.opcode = header.opcode
        request.node = header.nodeid
        request.user = header.uid
        request.group = header.gid
        request.process = header.pid
        guard header.len >= UInt32(headerBytes), UInt64(header.len) <= segments.readableBytes else {
            return fail(&request, .invalidArgument)
        }
        let length = Int(header.len) - headerBytes
        let isWrite = header.opcode == UInt32(WIRE_FUSE_WRITE)
        let structureBytes = isWrite ? min(length, MemoryLayout<wire_fuse_write_in>.size) : length
        guard structureBytes <= Self.scratchBytes else { return fail(&request, Errno(rawValue: E2BIG)) }
        unsafe segments.copyReadable(
            from: headerBytes, to: UnsafeMutableRawBufferPointer(start: scratch.base, count: structureBytes))
        var input = unsafe FuseInput(UnsafeRawPointer(scratch.base), count: structureBytes)
        if header.opcode == UInt32(WIRE_FUSE_INIT) { return initialize(&request, &input) }
        guard let agreement = files.agreement else {
            // A worker before may have ended it already.
            return header.opcode == UInt32(WIRE_FUSE_DESTROY) ? answer(&request, .done) : fail(&request, .inputOutput)
        }
        let dataCount = length - structureBytes
        if isWrite { request.aimAtRequest(skipping: headerBytes + structureBytes, count: dataCount) }
        return carryOut(&request, &input, dataCount: dataCount, agreement, adoption)
    }

    /// What became of an operation of a worker before.
    private struct Adoption {
        /// Bytes that were transferred before it.
        var done: UInt64
        /// What the request waited for.
        var stage: UInt64
        var result: Int32
    }

    private mutating func carryOut(
        _ request: inout FuseRequest, _ input: inout FuseInput, dataCount: Int, _ agreement: FuseAgreement,
        _ adoption: Adoption?
    ) -> FuseStep {
        switch Int(request.opcode) {
        case WIRE_FUSE_DESTROY:
            files.end()
            return answer(&request, .done)
        case WIRE_FUSE_IOCTL:
            // Refused, all of them: what they would do is the host's devices' and file systems' own business.
            return fail(&request, Errno(rawValue: ENOTTY))
        default: break
        }
        let call: FuseCall?
        do throws(Errno) {
            call = try FuseCall.decode(opcode: request.opcode, &input, dataCount: dataCount, agreement)
        } catch {
            return fail(&request, error)
        }
        guard let call else { return fail(&request, .noSuchCall) }
        if case .read(let arguments) = call { request.aimAtAnswer(count: Int(arguments.size)) }
        if description.isReadOnly, call.changesFiles { return fail(&request, Errno(rawValue: EROFS)) }
        // What the server has queued must not be handed over while the thread is the driver's user.
        if call.makesName, adoption == nil, !engine.submitAll() { request.avoidsEngine = true }
        let result = files.start(call, &request)
        guard let adoption else { return answer(&request, result) }
        switch result {
        case .operation, .operationAsDriver:
            // It has happened: it is not asked for again.
            files.becomeServer()
            // Whoever asked has written another request over it since: a result of the one says nothing of the other.
            guard adoption.stage == UInt64(request.stage) else {
                return answer(&request, files.finish(&request, result: -EIO))
            }
            if adoption.done > 0 { request.advance(Int(clamping: adoption.done)) }
            return answer(&request, files.finish(&request, result: adoption.result))
        default: return answer(&request, result)
        }
    }

    private mutating func initialize(_ request: inout FuseRequest, _ input: inout FuseInput) -> FuseStep {
        do throws(Errno) {
            // Before 7.36 the structure ended after `flags`.
            let offer = try input.takeShort(wire_fuse_init_in(), atLeast: 16)
            let (agreement, answer) = try FuseAgreement.negotiate(offer, description)
            if let agreement { files.begin(agreement) }
            return reply(&request, answer)
        } catch {
            return fail(&request, error)
        }
    }

    /// Goes on with a request, an operation of which has completed.
    public mutating func finish(_ request: inout FuseRequest, result: Int32) -> FuseStep {
        answer(&request, files.finish(&request, result: result))
    }

    /// Goes on with one that found no room, or waits.
    public mutating func resume(_ request: inout FuseRequest) -> FuseStep {
        if let operation = request.stalledOperation { return enqueue(operation, &request) }
        return answer(&request, files.resume(&request))
    }

    /// Answers a request that waits for a lock, or would: it does not.
    mutating func endWait(of request: inout FuseRequest, _ error: Errno) -> FuseStep { fail(&request, error) }

    /// Answers a request with an error without looking at it: its header is all that is read.
    public mutating func refuse(_ request: inout FuseRequest, _ segments: SegmentList, _ error: Errno) -> FuseStep {
        request.take(segments)
        var header = wire_fuse_in_header()
        guard segments.readableBytes >= UInt64(MemoryLayout<wire_fuse_in_header>.size) else {
            return .done(written: 0)
        }
        unsafe withUnsafeMutableBytes(of: &header) { unsafe segments.copyReadable(from: 0, to: $0) }
        request.unique = header.unique
        request.opcode = header.opcode
        return fail(&request, error)
    }

    /// Hands the operation that was queued last to the kernel, as whom the thread works now: nothing else is queued.
    /// From then on it works as the server again.
    ///
    /// - Returns: nil; or how the request goes on when the kernel does not take it.
    mutating func submitAtOnce(_ request: inout FuseRequest) -> FuseStep? {
        let isTaken = engine.submitAll()
        files.becomeServer()
        if isTaken { return nil }
        engine.takeBack()
        return doWithoutEngine(&request)
    }

    /// As if the ring did not allow the operation.
    private mutating func doWithoutEngine(_ request: inout FuseRequest) -> FuseStep {
        answer(&request, files.finish(&request, result: -EACCES))
    }

    // MARK: Answers

    /// Queues an operation that is carried out as whom the thread works now.
    private mutating func enqueueAsDriver(_ operation: IOOperation, _ request: inout FuseRequest) -> FuseStep {
        if tryToEnqueue(operation, &request) { return .submitting }
        // Later, the thread would be somebody else.
        files.becomeServer()
        return doWithoutEngine(&request)
    }

    /// - Returns: false when there is no room.
    private mutating func tryToEnqueue(_ operation: IOOperation, _ request: inout FuseRequest) -> Bool {
        // Each operation has a name of its own, so that a late completion is not taken for a newer one's.
        let token = request.token &+ 1 << 32
        guard engine.enqueue(operation, token: token) else { return false }
        request.token = token
        return true
    }

    private mutating func enqueue(_ operation: IOOperation, _ request: inout FuseRequest) -> FuseStep {
        if !tryToEnqueue(operation, &request) {
            engine.submit()
            guard tryToEnqueue(operation, &request) else {
                request.stalledOperation = operation
                return .stalled
            }
        }
        request.stalledOperation = nil
        return .pending
    }

    private mutating func answer(_ request: inout FuseRequest, _ result: FileResult) -> FuseStep {
        switch result {
        case .operation(let operation): return enqueue(operation, &request)
        case .operationAsDriver(let operation): return enqueueAsDriver(operation, &request)
        case .again: return .again
        case .waiting: return .waiting
        case .failed(let error): return fail(&request, error)
        case .silent: return .done(written: 0)
        case .done: return .done(written: request.writeHeader(error: nil, count: FuseRequest.headerBytes))
        case .opened(let value): return reply(&request, value)
        case .written(let count): return reply(&request, wire_fuse_write_out(size: count, padding: 0))
        case .data(let count):
            let total = FuseRequest.headerBytes + Int(count)
            return .done(written: request.writeHeader(error: nil, count: total))
        case .bytes(let bytes): return unsafe reply(&request, bytes.base, bytes.count)
        case .size(let count): return reply(&request, wire_fuse_getxattr_out(size: count, padding: 0))
        case .position(let offset): return reply(&request, wire_fuse_lseek_out(offset: offset))
        case .lock(let lock): return reply(&request, lock)
        }
    }

    private func fail(_ request: inout FuseRequest, _ error: Errno) -> FuseStep {
        switch Int(request.opcode) {
        case WIRE_FUSE_FORGET, WIRE_FUSE_BATCH_FORGET, WIRE_FUSE_INTERRUPT:
            // No answer is ever expected.
            request.hasFailed = true
            return .done(written: 0)
        default: return .done(written: request.writeHeader(error: error, count: FuseRequest.headerBytes))
        }
    }

    private func reply<Value: BitwiseCopyable>(_ request: inout FuseRequest, _ value: Value) -> FuseStep {
        unsafe withUnsafeBytes(of: value) { bytes in
            unsafe reply(&request, bytes.baseAddress!, bytes.count)
        }
    }

    private func reply(_ request: inout FuseRequest, _ bytes: UnsafeRawPointer, _ count: Int) -> FuseStep {
        // A driver that gives less room than its request needs does not get half an answer.
        guard count <= request.answerRoom else { return fail(&request, Errno(rawValue: EMSGSIZE)) }
        unsafe request.write(bytes, count: count, at: FuseRequest.headerBytes)
        return .done(written: request.writeHeader(error: nil, count: FuseRequest.headerBytes + count))
    }
}

extension FuseServer: Sendable where Files: Sendable & ~Copyable, Engine: Sendable & ~Copyable {}

extension FuseCall {
    /// RENAME_WHITEOUT
    static var whiteout: UInt32 { 4 }

    /// Its operation may be handed to the kernel as the driver's user.
    var makesName: Bool {
        switch self {
        case .makeDirectory, .symlink, .makeNode: true
        case .create(_, let arguments, _): Int32(bitPattern: arguments.flags) & O_EXCL != 0
        case .rename(_, _, _, let flags): flags & Self.whiteout != 0
        default: false
        }
    }

    /// It would change the directory, whatever it says.
    var changesFiles: Bool {
        switch self {
        case .symlink, .makeNode, .makeDirectory, .unlink, .removeDirectory, .rename, .link, .create, .temporaryFile,
            .write, .setAttributes, .setAttribute, .removeAttribute, .allocate, .copyRange:
            true
        case .open(let arguments):
            arguments.flags & UInt32(O_ACCMODE | O_TRUNC) != 0
        case .access(let mask): mask & 2 != 0
        // All of them, so that the next call that there will be has to say which it is.
        case .lookUp, .forget, .batchForget, .getAttributes, .statx, .readLink, .read, .statistics, .release, .flush,
            .synchronize, .openDirectory, .readDirectory, .releaseDirectory, .synchronizeDirectory, .synchronizeAll,
            .getAttribute, .listAttributes, .getLock, .setLock, .seek, .interrupt:
            false
        }
    }
}
