internal import CWire
internal import Platform

/// A file system at the other end of a queue, one call at a time; every answer is checked.
///
/// Names are bytes, without a zero at their end. A node that a call makes known is the caller's to `forget`.
public struct FileClient: ~Copyable {
    /// As whom calls are made.
    public var caller = FileCaller.root
    /// How long a call may take, in milliseconds.
    public var timeout: Int32 = 30_000
    /// What was agreed on; of an earlier session if `initialize` was not called.
    public internal(set) var limits: FileSessionLimits?
    var requests: FileQueue
    /// For FORGET and INTERRUPT.
    var priority: FileQueue

    /// The node of the shared directory (FUSE_ROOT_ID).
    public static let root: UInt64 = 1

    /// - Parameters:
    ///   - requests: a request queue, which the client drives alone.
    ///   - priority: the high-priority queue, with the room of `priorityLayout` or more.
    public init(requests: consuming FileQueue, priority: consuming FileQueue) {
        self.requests = requests
        self.priority = priority
    }

    /// What the high-priority queue needs.
    public static let priorityLayout = FileQueue.Layout(depth: 16, argumentCapacity: 4096, dataCapacity: 4096)

    // MARK: Session

    /// Agrees on version and features (INIT).
    @discardableResult
    public mutating func initialize(
        _ offer: FileSessionOffer = FileSessionOffer()
    ) throws(FileError) -> FileSessionLimits {
        let wire = wire_fuse_init_in(
            major: 7, minor: offer.minor, max_readahead: offer.maximumReadahead,
            flags: UInt32(truncatingIfNeeded: offer.flags.rawValue),
            flags2: UInt32(truncatingIfNeeded: offer.flags.rawValue >> 32),
            unused: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
        let answer = try call(.initialize, 0, wire, answering: wire_fuse_init_out.self)
        guard answer.major == 7, answer.minor >= 27 else {
            throw .malformed(.initialize, "version \(answer.major).\(answer.minor) is none that is understood here")
        }
        let limits = FileSessionLimits(answer)
        guard limits.flags.isSubset(of: offer.flags) else {
            let unknown = limits.flags.subtracting(offer.flags).rawValue
            throw .malformed(.initialize, "it agrees to flags that were not offered: 0x\(String(unknown, radix: 16))")
        }
        self.limits = limits
        return limits
    }

    /// Ends the session (DESTROY); the device forgets nodes, handles and what was agreed on.
    public mutating func destroy() throws(FileError) {
        try call(.destroy, 0, answer: .small(0))
    }

    // MARK: Nodes

    /// Looks a name up (LOOKUP).
    public mutating func lookUp(_ name: [UInt8], in directory: UInt64) throws(FileError) -> FileEntry {
        try entry(.lookup, directory, names: [name])
    }

    /// Takes back so many times that a node was made known (FORGET).
    public mutating func forget(_ node: UInt64, times: UInt64 = 1) throws(FileError) {
        try tell(.forget, node, wire_fuse_forget_in(nlookup: times))
    }

    /// The same of several nodes at once (BATCH_FORGET), at most 200.
    public mutating func forget(_ nodes: [(node: UInt64, times: UInt64)]) throws(FileError) {
        precondition(nodes.count <= 200, "too many for one request")
        var bytes = Self.bytes(of: wire_fuse_batch_forget_in(count: UInt32(nodes.count), dummy: 0))
        for (node, times) in nodes { bytes += Self.bytes(of: wire_fuse_forget_one(nodeid: node, nlookup: times)) }
        try tell(.forgetMany, 0, bytes)
    }

    /// Says that the answer to a request is not waited for any more (INTERRUPT).
    ///
    /// - Parameter unique: its number.
    public mutating func interrupt(_ unique: UInt64) throws(FileError) {
        // It has a reply only where it comes too early or is not known: EAGAIN or ENOSYS.
        try tell(.interrupt, 0, Self.bytes(of: wire_fuse_interrupt_in(unique: unique)))
    }

    // MARK: Calls

    /// Any request.
    ///
    /// - Parameters:
    ///   - arguments: what follows the header.
    ///   - data: what follows the arguments, in descriptors of its own.
    ///   - read: takes what is wanted out of the answer, which lies in guest memory.
    public mutating func perform<Result>(
        _ opcode: FileOpcode, _ node: UInt64, arguments: [UInt8], data: [UInt8] = [], answer: FileCall.Answer,
        read: (UnsafeRawBufferPointer) throws(FileError) -> Result
    ) throws(FileError) -> Result {
        let slot = requests.reserve()
        defer { requests.release(slot) }
        submit(opcode, node, arguments, data, answer, in: slot)
        let completion = try wait(for: opcode)
        if let error = completion.error { throw .refused(error) }
        return unsafe try read(requests.answer(completion))
    }

    /// Begins a request that may take long; `finish` waits for it. One at a time.
    ///
    /// - Parameter answerBytes: room for its answer, the header not counted.
    /// - Returns: its number, for `interrupt`.
    public mutating func begin(
        _ opcode: FileOpcode, _ node: UInt64, arguments: [UInt8], answerBytes: Int = 0
    ) -> UInt64 {
        submit(opcode, node, arguments, [], .small(answerBytes), in: requests.reserve())
    }

    /// Waits for what was begun.
    ///
    /// - Returns: false when it has not ended within the time.
    public mutating func finish(_ opcode: FileOpcode, milliseconds: Int32) throws(FileError) -> Bool {
        guard requests.waitForCompletion(milliseconds: milliseconds) else { return false }
        let completion = try wait(for: opcode)
        requests.release(completion.slot)
        if let error = completion.error { throw .refused(error) }
        return true
    }

    @discardableResult
    private mutating func submit(
        _ opcode: FileOpcode, _ node: UInt64, _ arguments: [UInt8], _ data: [UInt8], _ answer: FileCall.Answer,
        in slot: Int
    ) -> UInt64 {
        unsafe requests.arguments(slot).copyBytes(from: arguments)
        unsafe requests.data(slot).copyBytes(from: data)
        let unique = requests.submit(
            FileCall(
                opcode, node: node, caller: caller, argumentCount: arguments.count, dataCount: data.count,
                answer: answer), in: slot)
        requests.publish()
        return unique
    }

    private mutating func wait(for opcode: FileOpcode) throws(FileError) -> FileCompletion {
        guard requests.waitForCompletion(milliseconds: timeout), let completion = try Self.next(&requests) else {
            throw .noAnswer(opcode, milliseconds: timeout)
        }
        return completion
    }

    mutating func call(
        _ opcode: FileOpcode, _ node: UInt64, _ arguments: [UInt8] = [], data: [UInt8] = [],
        answer: FileCall.Answer = .small(0)
    ) throws(FileError) {
        unsafe try perform(opcode, node, arguments: arguments, data: data, answer: answer) { _ in }
    }

    /// A request with arguments and an answer of fixed size.
    mutating func call<Argument: BitwiseCopyable, Answer: BitwiseCopyable>(
        _ opcode: FileOpcode, _ node: UInt64, _ argument: Argument, names: [[UInt8]] = [], data: [UInt8] = [],
        answering type: Answer.Type
    ) throws(FileError) -> Answer {
        try call(opcode, node, Self.bytes(of: argument) + Self.bytes(names), data: data, answering: type)
    }

    mutating func call<Answer: BitwiseCopyable>(
        _ opcode: FileOpcode, _ node: UInt64, _ arguments: [UInt8], data: [UInt8] = [], answering type: Answer.Type
    ) throws(FileError) -> Answer {
        let size = MemoryLayout<Answer>.size
        return unsafe try perform(opcode, node, arguments: arguments, data: data, answer: .small(size)) {
            (bytes) throws(FileError) in
            guard bytes.count == size else {
                throw .malformed(opcode, "it has \(bytes.count) bytes and not \(size)")
            }
            return unsafe bytes.loadUnaligned(as: Answer.self)
        }
    }

    /// A request that makes a node known.
    mutating func entry(
        _ opcode: FileOpcode, _ node: UInt64, _ arguments: [UInt8] = [], names: [[UInt8]]
    ) throws(FileError) -> FileEntry {
        FileEntry(
            try call(opcode, node, arguments + Self.bytes(names), answering: wire_fuse_entry_out.self))
    }

    /// A request on the high-priority queue that has no reply.
    private mutating func tell<Argument: BitwiseCopyable>(
        _ opcode: FileOpcode, _ node: UInt64, _ argument: Argument
    ) throws(FileError) {
        try tell(opcode, node, Self.bytes(of: argument))
    }

    /// Sends it without waiting, unless the queue is full.
    private mutating func tell(_ opcode: FileOpcode, _ node: UInt64, _ arguments: [UInt8]) throws(FileError) {
        while let completion = try Self.next(&priority) { priority.release(completion.slot) }
        while !priority.hasRoom {
            guard priority.waitForCompletion(milliseconds: timeout), let completion = try Self.next(&priority) else {
                throw .noAnswer(opcode, milliseconds: timeout)
            }
            priority.release(completion.slot)
        }
        let slot = priority.reserve()
        unsafe priority.arguments(slot).copyBytes(from: arguments)
        let answer: FileCall.Answer = opcode == .interrupt ? .small(0) : .never
        priority.submit(
            FileCall(opcode, node: node, caller: caller, argumentCount: arguments.count, answer: answer), in: slot)
        priority.publish()
    }

    private static func next(_ queue: inout FileQueue) throws(FileError) -> FileCompletion? {
        do throws(FileViolation) {
            return try queue.nextCompletion()
        } catch {
            throw .violation(error)
        }
    }

    /// As it lies in memory.
    static func bytes<Value: BitwiseCopyable>(of value: Value) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
    }

    /// Names as a request has them: each with a zero at its end.
    static func bytes(_ names: [[UInt8]]) -> [UInt8] {
        names.flatMap { $0 + [0] }
    }
}
