public import Platform

/// As whom a request is made: what the guest's kernel says of the process that called it.
public struct FileCaller: Hashable, Sendable {
    public var user: UInt32
    public var group: UInt32
    public var process: UInt32

    public init(user: UInt32 = 0, group: UInt32 = 0, process: UInt32 = 1) {
        self.user = user
        self.group = group
        self.process = process
    }

    public static let root = FileCaller()
}

/// One FUSE request as its queue lays it out; arguments and data are in the slot's memory already.
public struct FileCall: Hashable, Sendable {
    /// Where the device writes what follows the header of its reply.
    public enum Answer: Hashable, Sendable {
        /// There is no reply at all (FORGET, BATCH_FORGET): the chain has nothing to write to.
        case never
        /// At most so many bytes, beside the header: 0 to `FileQueue.smallAnswer`.
        case small(Int)
        /// At most so many bytes, in the slot's data; the request has none of its own then.
        case data(Int)
    }

    public var opcode: FileOpcode
    /// Node that the request is about; 0 where it is about none.
    public var node: UInt64
    public var caller: FileCaller
    /// Bytes of the slot's arguments.
    public var argumentCount: Int
    /// Bytes of the slot's data that the device reads, behind the arguments.
    public var dataCount: Int
    public var answer: Answer
    /// Comes back with the completion.
    public var token: UInt64

    public init(
        _ opcode: FileOpcode, node: UInt64, caller: FileCaller = .root, argumentCount: Int = 0, dataCount: Int = 0,
        answer: Answer = .small(0), token: UInt64 = 0
    ) {
        self.opcode = opcode
        self.node = node
        self.caller = caller
        self.argumentCount = argumentCount
        self.dataCount = dataCount
        self.answer = answer
        self.token = token
    }
}

/// How a request ended.
public struct FileCompletion: Hashable, Sendable {
    /// The slot, which is the caller's until it is given back.
    public var slot: Int
    public var opcode: FileOpcode
    public var token: UInt64
    /// What the device answered instead of a result.
    public var error: Errno?
    /// Bytes of the answer behind its header.
    public var count: Int
}

/// What a device did that no file-system device may do.
public enum FileViolation: Error, Hashable, Sendable, CustomStringConvertible {
    case queue(QueueViolation)
    /// The reply is shorter than its header, or its length is not what the chain says was written.
    case length(FileOpcode, said: UInt32, used: UInt32)
    /// The reply is to another request.
    case unique(FileOpcode, expected: UInt64, found: UInt64)
    /// The error is no error number, or comes with more than a header.
    case error(FileOpcode, Int32)
    /// Bytes behind what the request gave it have changed.
    case wroteOutside(FileOpcode)
    /// A request that has no reply got one.
    case unasked(FileOpcode)

    public var description: String {
        switch self {
        case .queue(let violation): "\(violation)"
        case .length(let opcode, let said, let used):
            "the reply to \(opcode) says it is \(said) bytes long, and \(used) bytes were written"
        case .unique(let opcode, let expected, let found):
            "the reply to \(opcode), request \(expected), is one to request \(found)"
        case .error(let opcode, let error): "the reply to \(opcode) has the error \(error), which is none"
        case .wroteOutside(let opcode): "the device wrote outside of what \(opcode) gave it"
        case .unasked(let opcode): "\(opcode) has no reply, and got one"
        }
    }
}

/// Why a call has no result.
public enum FileError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The device answered with an error number.
    case refused(Errno)
    /// The device broke the rules; the queue is unusable.
    case violation(FileViolation)
    /// The answer is not what the request asks for.
    case malformed(FileOpcode, String)
    case noAnswer(FileOpcode, milliseconds: Int32)

    /// The device's error number, if that is what it is.
    public var errno: Errno? {
        if case .refused(let errno) = self { errno } else { nil }
    }

    public var description: String {
        switch self {
        case .refused(let errno): "\(errno)"
        case .violation(let violation): "\(violation)"
        case .malformed(let opcode, let sentence): "the answer to \(opcode) is malformed: \(sentence)"
        case .noAnswer(let opcode, let milliseconds): "no answer to \(opcode) within \(milliseconds) ms"
        }
    }
}
