internal import CLiburing
internal import CLinux
internal import Glibc
public import Platform
internal import Synchronization

/// One io_uring instance with one owner.
///
/// liburing sets it up and maps it; the queues are driven here, because a take-over needs every store in plain sight.
/// Invariants:
/// - Completions taken are let go of only by `releaseCompletions`: until then a successor finds them again.
/// - `tail` is the index behind the last SQE written; the kernel sees it at `submit`. SQEs between the kernel's head
///   and the kernel's tail belong to the kernel.
/// - The array that maps ring positions to SQEs is the identity, written once.
/// - COOP_TASKRUN|TASKRUN_FLAG: completions are never forced on a running thread by an interrupt; a flag says that work
///   waits. DEFER_TASKRUN and SINGLE_ISSUER stay off: with them a successor could neither reap nor use the ring.
@safe public struct Ring: ~Copyable, IOEngine, @unchecked Sendable {
    private var ring: io_uring
    private let entries: UInt32
    private let mask: UInt32
    private var tail: UInt32
    private var completionHead: UInt32
    private let completionMask: UInt32
    /// Whoever made the ring has given it a table of files.
    private let hasTable: Bool
    /// Where the kernel stood in the submission queue when this process took the ring over.
    private var adoptedHead: UInt32
    /// Files that the ring keeps open itself, in the order in which it knows them. Before: what is no operation's file,
    /// for some operations have none, which is -1.
    private var registered: (Int32, Int32) = (.min, .min)

    /// Makes a ring.
    ///
    /// - Parameters:
    ///   - entries: operations that can be queued before a submit; rounded up to a power of two by the kernel.
    ///   - completions: operations that can be in flight; at least `entries`.
    /// - Throws: a sentence that says why this machine gives no ring, and what to do.
    public init(entries: UInt32, completions: UInt32) throws(SystemError) {
        var parameters = io_uring_params()
        parameters.flags = UInt32(IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE)
        parameters.cq_entries = max(entries, completions)
        var ring = unsafe io_uring()
        let result = unsafe io_uring_queue_init_params(entries, &ring, &parameters)
        guard result == 0 else { throw Self.explain(Errno(rawValue: -result)) }
        if let missing = unsafe Self.missingOperation(&ring) {
            unsafe io_uring_queue_exit(&ring)
            throw SystemError(
                cannot: "use io_uring", "", nil,
                advice: "This kernel's io_uring lacks \(missing). Baton needs Linux 6.1 or newer")
        }
        unsafe self.init(mapped: ring, hasTable: false)
    }

    /// Takes over a ring that somebody else has made: `init(mapping:parameters:)` and `takeUp`.
    public init(adopting fd: consuming OwnedFD, parameters bytes: [UInt8]) throws(SystemError) {
        try self.init(mapping: fd, parameters: bytes)
        _ = takeUp()
    }

    /// Maps a ring that somebody else has made, and may be using: nothing may be done with it before `takeUp`.
    ///
    /// - Parameters:
    ///   - fd: of the ring; the ring itself lives on when this process ends, if somebody else has it too.
    ///   - parameters: struct io_uring_params as io_uring_setup has filled it in.
    /// - Throws: when it cannot be mapped.
    public init(mapping fd: consuming OwnedFD, parameters bytes: [UInt8]) throws(SystemError) {
        var parameters = io_uring_params()
        let size = MemoryLayout<io_uring_params>.size
        guard bytes.count == size else {
            throw SystemError(cannot: "take over", "a kernel ring", nil, advice: "Its parameters are damaged")
        }
        unsafe withUnsafeMutableBytes(of: &parameters) { unsafe $0.copyBytes(from: bytes) }
        var ring = unsafe io_uring()
        let result = unsafe io_uring_queue_mmap(fd.number, &parameters, &ring)
        guard result == 0 else { throw SystemError(cannot: "take over", "a kernel ring", Errno(rawValue: -result)) }
        _ = fd.release()
        unsafe self.init(mapped: ring, hasTable: true)
    }

    /// Goes on with a ring that workers before this one may have used. None of them uses it any more: their threads are
    /// gone, for the kernel shows how far it has taken the submission queue only at the end of a system call. What it
    /// has not taken was never started, and is dropped.
    public mutating func takeUp() -> Int {
        tail = unsafe Self.atomic(ring.sq.khead).pointee.load(ordering: .acquiring)
        adoptedHead = tail
        completionHead = unsafe ring.cq.khead.pointee
        unsafe Self.atomic(ring.sq.ktail).pointee.store(tail, ordering: .releasing)
        return Int(unsafe Self.atomic(ring.cq.ktail).pointee.load(ordering: .acquiring) &- completionHead)
    }

    private init(mapped ring: io_uring, hasTable: Bool) {
        self.hasTable = hasTable
        // The same for everybody: no harm where another process uses the ring.
        for position in 0..<(unsafe ring.sq.ring_entries) { unsafe ring.sq.array[Int(position)] = position }
        unsafe self.ring = unsafe ring
        self.entries = unsafe ring.sq.ring_entries
        mask = unsafe ring.sq.ring_mask
        tail = unsafe Self.atomic(ring.sq.khead).pointee.load(ordering: .acquiring)
        adoptedHead = tail
        completionHead = unsafe ring.cq.khead.pointee
        completionMask = unsafe ring.cq.ring_mask
    }

    deinit {
        var ring = unsafe self.ring
        unsafe io_uring_queue_exit(&ring)
    }

    /// Lets the ring itself keep two files open, so that the kernel need not look them up for each operation. An
    /// advice: a ring that cannot goes on without.
    ///
    /// A ring that outlives its worker has a table already, in which these files take the place of those of the worker
    /// before: they stay open, with their locks, until the last operation on them has ended.
    public mutating func keepOpen(_ first: Int32, _ second: Int32) {
        let files = [first, second]
        let isKept =
            if hasTable {
                unsafe io_uring_register_files_update(&ring, 0, files, 2) == 2
            } else {
                unsafe io_uring_register_files(&ring, files, 2) == 0
            }
        if isKept {
            registered = (first, second)
        } else if hasTable {
            // Of the two, the first may have been put there; and the ones before are nobody's any more.
            unsafe io_uring_register_files_update(&ring, 0, [-1, -1], 2)
        }
    }

    static func atomic(_ address: UnsafeMutablePointer<UInt32>) -> UnsafeMutablePointer<Atomic<UInt32>> {
        unsafe UnsafeMutableRawPointer(address).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    public var queuedCount: Int {
        Int(tail &- (unsafe Self.atomic(ring.sq.khead).pointee.load(ordering: .acquiring)))
    }

    /// Operations that can be queued before a submit.
    var capacity: Int { Int(entries) }

    public var pollDescriptor: Int32? { unsafe ring.ring_fd }

    public mutating func enqueue(_ operation: IOOperation, token: UInt64) -> Bool {
        guard queuedCount < Int(entries) else { return false }
        let sqe = unsafe ring.sq.sqes + Int(tail & mask)
        let buffer = unsafe UnsafeRawPointer(operation.buffer)
        let file = operation.file
        switch operation.kind {
        case .read:
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_READ.rawValue), sqe, file, buffer, operation.count, operation.offset)
        case .readVectors:
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_READV.rawValue), sqe, file, buffer, operation.count, operation.offset)
        case .write:
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_WRITE.rawValue), sqe, file, buffer, operation.count, operation.offset)
            unsafe sqe.pointee.rw_flags = Int32(bitPattern: operation.flags)
        case .writeVectors:
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_WRITEV.rawValue), sqe, file, buffer, operation.count, operation.offset)
            unsafe sqe.pointee.rw_flags = Int32(bitPattern: operation.flags)
        case .unlink, .rename, .makeDirectory, .symlink, .link, .makeFile:
            unsafe prepareNames(operation, sqe)
        case .synchronizeData, .synchronize, .allocate, .discardDevice, .receive, .send, .updateFiles, .installFile:
            unsafe prepareRare(operation, sqe)
        }
        if file == registered.0 {
            unsafe Self.useRegistered(0, sqe)
        } else if file == registered.1 {
            unsafe Self.useRegistered(1, sqe)
        }
        if operation.personality != 0 { unsafe sqe.pointee.personality = operation.personality }
        unsafe sqe.pointee.user_data = token
        tail &+= 1
        return true
    }

    private static func useRegistered(_ index: Int32, _ sqe: UnsafeMutablePointer<io_uring_sqe>) {
        unsafe sqe.pointee.fd = index
        unsafe sqe.pointee.flags |= fixedFile
    }

    /// IOSQE_FIXED_FILE
    private static var fixedFile: UInt8 { 1 }

    func prepareRare(_ operation: IOOperation, _ sqe: UnsafeMutablePointer<io_uring_sqe>) {
        switch operation.kind {
        case .synchronizeData:
            unsafe io_uring_prep_fsync(sqe, operation.file, UInt32(IORING_FSYNC_DATASYNC))
        case .synchronize:
            unsafe io_uring_prep_fsync(sqe, operation.file, 0)
        case .allocate:
            let mode = Int32(bitPattern: operation.flags)
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_FALLOCATE.rawValue), sqe, operation.file, nil, UInt32(bitPattern: mode),
                operation.offset)
            unsafe sqe.pointee.addr = operation.length
        case .discardDevice:
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_URING_CMD.rawValue), sqe, operation.file, nil, 0, UInt64(Self.blockCommandDiscard))
            unsafe sqe.pointee.addr = operation.offset
            unsafe sqe.pointee.addr3 = operation.length
        case .receive:
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_RECV.rawValue), sqe, operation.file, operation.buffer, operation.count, 0)
            unsafe sqe.pointee.msg_flags = UInt32(MSG_DONTWAIT)
        case .send:
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_SENDMSG.rawValue), sqe, operation.file, operation.buffer, operation.count, 0)
            unsafe sqe.pointee.msg_flags = UInt32(MSG_DONTWAIT) | UInt32(CLINUX_MSG_NOSIGNAL)
        case .updateFiles:
            unsafe io_uring_prep_rw(
                Int32(IORING_OP_FILES_UPDATE.rawValue), sqe, operation.file, operation.buffer, operation.count,
                operation.offset)
        case .installFile:
            unsafe io_uring_prep_rw(Self.installFixedFile, sqe, operation.file, nil, 0, 0)
            unsafe sqe.pointee.flags = Self.fixedFile
        case .read, .readVectors, .write, .writeVectors, .unlink, .rename, .makeDirectory, .symlink, .link,
            .makeFile:
            preconditionFailure("prepared by enqueue")
        }
    }

    /// Operations on names: `addr` is the first name, `off` (addr2) the second, `len` the second directory or a mode.
    func prepareNames(_ operation: IOOperation, _ sqe: UnsafeMutablePointer<io_uring_sqe>) {
        let code =
            switch operation.kind {
            case .unlink: IORING_OP_UNLINKAT
            case .makeDirectory: IORING_OP_MKDIRAT
            case .symlink: IORING_OP_SYMLINKAT
            case .link: IORING_OP_LINKAT
            case .makeFile: IORING_OP_OPENAT
            default: IORING_OP_RENAMEAT
            }
        unsafe io_uring_prep_rw(
            Int32(code.rawValue), sqe, operation.file, operation.buffer, operation.count, operation.offset)
        // rename_flags, unlink_flags, hardlink_flags and open_flags are all in this place.
        unsafe sqe.pointee.rw_flags = Int32(bitPattern: operation.flags)
    }

    /// IORING_OP_FIXED_FD_INSTALL, which liburing 2.3 does not name
    private static let installFixedFile: Int32 = 54

    /// BLOCK_URING_CMD_DISCARD: _IO(0x12, 0)
    private static let blockCommandDiscard: UInt32 = 0x1200

    public mutating func submit() {
        guard queuedCount > 0 else { return }
        unsafe Self.atomic(ring.sq.ktail).pointee.store(tail, ordering: .releasing)
        enter(submitting: UInt32(queuedCount), flags: 0)
    }

    public mutating func submitAll() -> Bool {
        // A call ends behind an operation that the kernel refuses.
        var (before, left) = (Int.max, queuedCount)
        while left > 0, left < before {
            submit()
            (before, left) = (left, queuedCount)
        }
        return left == 0
    }

    public mutating func takeBack() {
        guard queuedCount > 0 else { return }
        // The kernel looks at it in a system call of ours only.
        tail &-= 1
        unsafe Self.atomic(ring.sq.ktail).pointee.store(tail, ordering: .releasing)
    }

    public mutating func runDeferredWork() {
        let flags = unsafe Self.atomic(ring.sq.kflags).pointee.load(ordering: .relaxed)
        if flags & UInt32(IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW) != 0 {
            enter(submitting: 0, flags: UInt32(IORING_ENTER_GETEVENTS))
        }
    }

    /// One io_uring_enter that does not wait. What the kernel refuses for now (EAGAIN, EBUSY: no memory, completions
    /// not taken) stays queued; anything else it could say about our own ring is a bug of ours.
    mutating func enter(submitting count: UInt32, flags: UInt32) {
        while unsafe clinux_io_uring_enter(ring.ring_fd, count, 0, flags) < 0 {
            let error = Errno.current
            if error == .interrupted { continue }
            precondition(
                error == .wouldBlock || error == .busy || error == .noMemory, "io_uring_enter refused our own ring")
            return
        }
    }

    public mutating func nextCompletion() -> IOCompletion? {
        let end = unsafe Self.atomic(ring.cq.ktail).pointee.load(ordering: .acquiring)
        guard completionHead != end else { return nil }
        let cqe = unsafe ring.cq.cqes + Int(completionHead & completionMask)
        let completion = unsafe IOCompletion(token: cqe.pointee.user_data, result: cqe.pointee.res)
        completionHead &+= 1
        return completion
    }

    /// The result of an operation whose completion has not been let go of; nil while there is none.
    func result(of token: UInt64) -> Int32? {
        let end = unsafe Self.atomic(ring.cq.ktail).pointee.load(ordering: .acquiring)
        var position = unsafe Self.atomic(ring.cq.khead).pointee.load(ordering: .relaxed)
        while position != end {
            let entry = unsafe ring.cq.cqes + Int(position & completionMask)
            if unsafe entry.pointee.user_data == token { return unsafe entry.pointee.res }
            position &+= 1
        }
        return nil
    }

    public mutating func releaseCompletions() {
        unsafe Self.atomic(ring.cq.khead).pointee.store(completionHead, ordering: .releasing)
    }

    public var lastIndex: UInt32 { tail &- 1 }

    public mutating func registerPersonality() -> UInt16? {
        let result = unsafe io_uring_register_personality(&ring)
        return result > 0 ? UInt16(exactly: result) : nil
    }

    public func hadTaken(_ index: UInt32) -> Bool { Int32(bitPattern: index &- adoptedHead) < 0 }
}

extension Ring {
    /// The name of an operation that this kernel does not know, or nil.
    private static func missingOperation(_ ring: inout io_uring) -> String? {
        guard let probe = unsafe io_uring_get_probe_ring(&ring) else { return "the operation probe" }
        defer { unsafe io_uring_free_probe(probe) }
        let needed: [(io_uring_op, String)] = [
            (IORING_OP_READ, "READ"), (IORING_OP_WRITE, "WRITE"), (IORING_OP_READV, "READV"),
            (IORING_OP_WRITEV, "WRITEV"), (IORING_OP_FSYNC, "FSYNC"), (IORING_OP_FALLOCATE, "FALLOCATE"),
        ]
        for (operation, name) in needed
        where unsafe io_uring_opcode_supported(probe, Int32(operation.rawValue)) == 0 {
            return name
        }
        return nil
    }

    /// Turns io_uring_setup's error into what the operator can do.
    static func explain(_ error: Errno) -> SystemError {
        let advice: String
        switch error {
        case .noSuchCall:
            advice = "This kernel has no io_uring, or a seccomp filter hides it: Baton needs Linux 6.1 or newer with it"
        case .notPermitted, .permissionDenied:
            advice =
                "The sysctl kernel.io_uring_disabled forbids it (0 allows it to all, 1 to the group"
                + " kernel.io_uring_group and CAP_SYS_ADMIN, 2 to nobody), or a security module does"
        case .invalidArgument:
            advice = "This kernel's io_uring is too old: Baton needs Linux 6.1 or newer"
        case .noMemory:
            advice = "The limit on locked memory (ulimit -l) or the control group's memory limit is too small"
        default:
            advice = ""
        }
        return SystemError(cannot: "set up io_uring", "", error, advice: advice)
    }
}
