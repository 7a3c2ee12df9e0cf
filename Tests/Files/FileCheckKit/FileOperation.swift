/// Something that a program does to a file system, in the terms of system calls. Paths are relative to its root and
/// have no ".."; `slot` is one of the client's open files.
public enum FileOperation: Hashable, Sendable {
    case makeDirectory(String, mode: UInt32)
    case removeDirectory(String)
    /// - mode: type and permissions.
    case makeNode(String, mode: UInt32, major: UInt32, minor: UInt32)
    case makeSymbolicLink(String, target: String)
    case readLink(String)
    case unlink(String)
    case link(String, to: String)
    case linkOpen(slot: Int, to: String)
    case rename(String, to: String, flags: UInt32)
    /// - flags: of open.
    case open(slot: Int, String, flags: Int32, mode: UInt32)
    case openTemporary(slot: Int, String, flags: Int32, mode: UInt32)
    case close(slot: Int)
    case read(slot: Int, offset: UInt64, count: Int)
    /// - seed: of what is written.
    case write(slot: Int, offset: UInt64, count: Int, seed: UInt64)
    case status(String)
    case statusOpen(slot: Int)
    case changeMode(String, mode: UInt32)
    case changeModeOpen(slot: Int, mode: UInt32)
    case changeOwner(String, user: UInt32?, group: UInt32?)
    case truncate(String, size: UInt64)
    case truncateOpen(slot: Int, size: UInt64)
    case setTimes(String, accessed: TimeChange, modified: TimeChange)
    case setAttribute(String, name: String, count: Int, seed: UInt64, flags: UInt32)
    case attribute(String, name: String)
    case attributes(String)
    case removeAttribute(String, name: String)
    /// - part: bytes of one reading, where the executor can choose.
    case list(String, part: Int)
    case synchronize(slot: Int, dataOnly: Bool)
    case synchronizeDirectory(String)
    case synchronizeAll
    case allocate(slot: Int, mode: UInt32, offset: UInt64, count: UInt64)
    /// - whence: SEEK_DATA (3) or SEEK_HOLE (4).
    case seek(slot: Int, offset: UInt64, whence: UInt32)
    case copy(from: Int, offset: UInt64, to: Int, newOffset: UInt64, count: UInt64)
    case access(String, mask: UInt32)
    case fileSystem
    case lockFile(slot: Int, FileLockKind)
    case lock(slot: Int, FileLockKind, ClosedRange<UInt64>)
    case testLock(slot: Int, FileLockKind, ClosedRange<UInt64>)
}

/// What becomes of a time.
public enum TimeChange: Hashable, Sendable {
    case stays
    case now
    /// Since 1970; before 2017, so that it is known from a time that a clock has set.
    case at(seconds: Int64, nanoseconds: UInt32)
}

public enum FileLockKind: Hashable, Sendable {
    case shared, exclusive, none
}

/// Who does it.
public struct FileActor: Hashable, Sendable, CustomStringConvertible {
    public var index: Int
    public var user: UInt32
    public var group: UInt32
    public var umask: UInt32

    public var description: String { "client \(index) (\(user):\(group))" }
}

/// What became of an operation. What can only differ between two places is not in it: numbers of inodes, times that a
/// clock has set, sizes of directories.
public enum FileOutcome: Hashable, Sendable, CustomStringConvertible {
    /// The error number.
    case failed(Int32)
    case done([UInt64])
    case bytes([UInt8])
    case names([String])
    /// Not carried out, because it would say nothing of the file system: the slot is empty, or it is a FIFO that is
    /// opened.
    case passed

    public static let done = FileOutcome.done([])

    public var description: String {
        switch self {
        case .failed(let error): "error \(error) (\(errorName(error)))"
        case .done(let values): values.isEmpty ? "done" : "done: \(values)"
        case .bytes(let bytes): "\(bytes.count) bytes: \(bytes.prefix(32))\(bytes.count > 32 ? "…" : "")"
        case .names(let names): "\(names.count) names: \(names)"
        case .passed: "not carried out"
        }
    }
}

/// Somewhere that operations are carried out.
public protocol FileExecutor: ~Copyable {
    /// Carries one out.
    ///
    /// - Throws: what keeps it from going on at all; what the file system says is an outcome.
    mutating func perform(_ operation: FileOperation, by actor: FileActor) throws -> FileOutcome
    /// Closes everything that is open.
    mutating func end() throws
    /// Whether both outcomes of an operation that was just carried out are right.
    func leavesOpen(
        _ operation: FileOperation, by actor: FileActor, _ one: FileOutcome, _ other: FileOutcome
    ) -> Bool
}

extension FileExecutor where Self: ~Copyable {
    public func leavesOpen(
        _ operation: FileOperation, by actor: FileActor, _ one: FileOutcome, _ other: FileOutcome
    ) -> Bool { false }
}

/// The bytes of a write or a value.
func patterned(_ count: Int, seed: UInt64) -> [UInt8] {
    var state = seed | 1
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
    }
}

/// A time as outcomes have it: one that a clock has set says nothing.
func comparable(_ seconds: Int64, _ nanoseconds: UInt32) -> [UInt64] {
    seconds < 1_500_000_000 ? [UInt64(bitPattern: seconds), UInt64(nanoseconds)] : [.max, 0]
}
