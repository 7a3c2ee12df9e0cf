public import Glibc

/// The seam below every storage back-end: operations go in, completions come out, in any order. `Ring` is the real one;
/// tests put a simulated one in its place.
///
/// One thread owns an engine. Memory named by an operation stays valid until its completion has been taken; the vector
/// table of `readVectors` and `writeVectors` only until it has been submitted.
public protocol IOEngine: ~Copyable {
    /// Goes on with what workers before this one have left. Until then the engine is only held ready.
    ///
    /// - Returns: completions of theirs that wait.
    mutating func takeUp() -> Int

    /// Queues an operation.
    ///
    /// - Parameter token: comes back with the completion.
    /// - Returns: false when the queue is full: submit, then try again.
    mutating func enqueue(_ operation: IOOperation, token: UInt64) -> Bool

    /// Hands what is queued to the kernel, as far as it takes it now. What it does not take stays queued.
    mutating func submit()

    /// Hands all that is queued to the kernel.
    ///
    /// - Returns: false when it does not take it all now.
    mutating func submitAll() -> Bool

    /// What was queued last, and is queued still, is not queued any more.
    mutating func takeBack()

    /// Lets the kernel finish completion work that waits for this thread, if there is any. Cheap when there is none.
    mutating func runDeferredWork()

    /// Takes the next completion, or nil when there is none.
    mutating func nextCompletion() -> IOCompletion?

    /// Lets go of the completions taken so far: until then a successor of this process would find them again.
    mutating func releaseCompletions()

    /// Where in the submission queue the operation is that was queued last.
    var lastIndex: UInt32 { get }

    /// Whether the kernel had taken the operation at `index` when this process took the engine over from a dead one.
    /// Not meant for this process's own operations.
    func hadTaken(_ index: UInt32) -> Bool

    /// Operations queued and not yet taken by the kernel.
    var queuedCount: Int { get }

    /// Registers the calling thread's credentials, for operations that are to be carried out with them.
    ///
    /// - Returns: their number for `IOOperation.personality`; nil where the engine knows none.
    mutating func registerPersonality() -> UInt16?

    /// Advises the engine to keep two files open itself, instead of looking them up for each operation.
    mutating func keepOpen(_ first: Int32, _ second: Int32)

    /// A descriptor that polls readable when a completion has arrived; nil for an engine that completes at once.
    var pollDescriptor: Int32? { get }
}

/// An engine that nobody takes over.
extension IOEngine where Self: ~Copyable {
    public mutating func takeUp() -> Int { 0 }
    @inlinable public mutating func releaseCompletions() {}
    @inlinable public var lastIndex: UInt32 { 0 }
    @inlinable public func hadTaken(_ index: UInt32) -> Bool { false }
}

/// An engine that takes whatever it is given.
extension IOEngine where Self: ~Copyable {
    public mutating func submitAll() -> Bool {
        submit()
        return true
    }

    public mutating func takeBack() {}
}

/// An engine without credentials.
extension IOEngine where Self: ~Copyable {
    public mutating func registerPersonality() -> UInt16? { nil }
}

/// An engine that has files from others.
extension IOEngine where Self: ~Copyable {
    public mutating func keepOpen(_ first: Int32, _ second: Int32) {}
}

/// The result of one operation.
public struct IOCompletion: Sendable {
    /// As given to `enqueue`.
    public var token: UInt64
    /// What the system call would have returned: a count, or a negative error number.
    public var result: Int32

    @inlinable
    public init(token: UInt64, result: Int32) {
        self.token = token
        self.result = result
    }
}

/// One system call on a file, to be carried out by an engine.
@safe public struct IOOperation {
    public enum Kind: UInt8, Sendable {
        case read, write, readVectors, writeVectors, synchronizeData, allocate, discardDevice
        /// Data and everything else of a file.
        case synchronize
        /// Names in directories.
        case unlink, rename, makeDirectory, symlink, link, makeFile
        /// On a socket.
        case receive, send
        /// On the ring's own table of files.
        case updateFiles, installFile
    }

    public var kind: Kind
    public var file: Int32
    /// The buffer of `read` and `write`; the vector table of `readVectors` and `writeVectors`.
    public var buffer: UnsafeMutableRawPointer?
    /// Bytes of the buffer, or entries of the vector table.
    public var count: UInt32
    /// Bytes from the start of the file.
    public var offset: UInt64
    /// Bytes, for `allocate` and `discardDevice`.
    public var length: UInt64
    /// fallocate's mode for `allocate`; RWF_ flags for writes; the system call's flags for names.
    public var flags: UInt32
    /// As whom the kernel carries it out: credentials registered with the ring; 0: the caller's.
    public var personality: UInt16 = 0

    @inlinable
    init(
        _ kind: Kind, file: Int32, buffer: UnsafeMutableRawPointer? = nil, count: UInt32 = 0, offset: UInt64 = 0,
        length: UInt64 = 0, flags: UInt32 = 0
    ) {
        self.kind = kind
        self.file = file
        unsafe self.buffer = buffer
        self.count = count
        self.offset = offset
        self.length = length
        self.flags = flags
    }

    /// preadv2 into the vectors; a single one takes the kernel's shorter path.
    @inlinable
    public static func read(file: Int32, vectors: UnsafeMutablePointer<iovec>, count: Int, offset: UInt64) -> Self {
        if count == 1, let length = UInt32(exactly: unsafe vectors.pointee.iov_len) {
            return unsafe Self(
                .read, file: file, buffer: vectors.pointee.iov_base, count: length, offset: offset)
        }
        return unsafe Self(
            .readVectors, file: file, buffer: UnsafeMutableRawPointer(vectors), count: UInt32(count), offset: offset)
    }

    /// pwritev2 from the vectors.
    ///
    /// - Parameter durable: RWF_DSYNC: complete only when the data is on stable storage.
    @inlinable
    public static func write(
        file: Int32, vectors: UnsafeMutablePointer<iovec>, count: Int, offset: UInt64, durable: Bool
    ) -> Self {
        let flags: UInt32 = durable ? writeDurably : 0
        if count == 1, let length = UInt32(exactly: unsafe vectors.pointee.iov_len) {
            return unsafe Self(
                .write, file: file, buffer: vectors.pointee.iov_base, count: length, offset: offset, flags: flags)
        }
        return unsafe Self(
            .writeVectors, file: file, buffer: UnsafeMutableRawPointer(vectors), count: UInt32(count), offset: offset,
            flags: flags)
    }

    /// pread into one buffer.
    @inlinable
    public static func read(file: Int32, buffer: UnsafeMutableRawPointer, count: UInt32, offset: UInt64) -> Self {
        unsafe Self(.read, file: file, buffer: buffer, count: count, offset: offset)
    }

    /// pwritev2 from one buffer.
    @inlinable
    public static func write(
        file: Int32, buffer: UnsafeMutableRawPointer, count: UInt32, offset: UInt64, durable: Bool
    ) -> Self {
        unsafe Self(.write, file: file, buffer: buffer, count: count, offset: offset, flags: durable ? writeDurably : 0)
    }

    /// RWF_DSYNC
    @usableFromInline static var writeDurably: UInt32 { 2 }

    /// recv, without waiting
    static func receive(socket: Int32, buffer: UnsafeMutableRawPointer, count: UInt32) -> Self {
        unsafe Self(.receive, file: socket, buffer: buffer, count: count)
    }

    /// sendmsg, without waiting or a signal
    ///
    /// - Parameter message: a struct msghdr.
    static func send(socket: Int32, message: UnsafeMutableRawPointer) -> Self {
        unsafe Self(.send, file: socket, buffer: message, count: 1)
    }

    /// IORING_OP_FILES_UPDATE of `count` slots from `slot` on
    ///
    /// - Parameter files: descriptors, or -1, or -2 for a slot that stays as it is; they stay until the operation has
    ///   been submitted.
    static func updateFiles(_ files: UnsafeMutablePointer<Int32>, count: UInt32 = 1, slot: UInt32) -> Self {
        unsafe Self(.updateFiles, file: -1, buffer: UnsafeMutableRawPointer(files), count: count, offset: UInt64(slot))
    }

    /// IORING_OP_FIXED_FD_INSTALL (Linux 6.8)
    static func installFile(slot: UInt32) -> Self {
        unsafe Self(.installFile, file: Int32(bitPattern: slot))
    }

    /// fsync
    public static func synchronize(file: Int32) -> Self {
        unsafe Self(.synchronize, file: file)
    }

    /// unlinkat
    ///
    /// - Parameters:
    ///   - name: stays until the operation has been submitted, as do the names of `rename`.
    ///   - flags: AT_REMOVEDIR or 0.
    public static func unlink(in directory: Int32, _ name: UnsafePointer<CChar>, flags: Int32) -> Self {
        unsafe Self(
            .unlink, file: directory, buffer: UnsafeMutableRawPointer(mutating: name),
            flags: UInt32(bitPattern: flags))
    }

    /// renameat2
    public static func rename(
        from directory: Int32, _ name: UnsafePointer<CChar>, to newDirectory: Int32, _ newName: UnsafePointer<CChar>,
        flags: UInt32
    ) -> Self {
        unsafe Self(
            .rename, file: directory, buffer: UnsafeMutableRawPointer(mutating: name),
            count: UInt32(bitPattern: newDirectory), offset: UInt64(UInt(bitPattern: newName)), flags: flags)
    }

    /// mkdirat
    public static func makeDirectory(in directory: Int32, _ name: UnsafePointer<CChar>, mode: UInt32) -> Self {
        unsafe Self(
            .makeDirectory, file: directory, buffer: UnsafeMutableRawPointer(mutating: name), count: mode)
    }

    /// openat with O_CREAT | O_EXCL, and O_NOFOLLOW and O_CLOEXEC. The result is a descriptor of this process.
    ///
    /// - Parameter flags: of open, besides.
    public static func makeFile(
        in directory: Int32, _ name: UnsafePointer<CChar>, flags: Int32, mode: UInt32
    ) -> Self {
        unsafe Self(
            .makeFile, file: directory, buffer: UnsafeMutableRawPointer(mutating: name), count: mode,
            flags: UInt32(bitPattern: flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC))
    }

    /// symlinkat
    public static func symlink(
        to target: UnsafePointer<CChar>, in directory: Int32, _ name: UnsafePointer<CChar>
    ) -> Self {
        unsafe Self(
            .symlink, file: directory, buffer: UnsafeMutableRawPointer(mutating: target),
            offset: UInt64(UInt(bitPattern: name)))
    }

    /// linkat
    ///
    /// - Parameters:
    ///   - file: whose name is `name`; with AT_EMPTY_PATH it is the file itself, and that is empty.
    public static func link(
        _ file: Int32, _ name: UnsafePointer<CChar>, in directory: Int32, _ newName: UnsafePointer<CChar>,
        flags: Int32
    ) -> Self {
        unsafe Self(
            .link, file: file, buffer: UnsafeMutableRawPointer(mutating: name),
            count: UInt32(bitPattern: directory), offset: UInt64(UInt(bitPattern: newName)),
            flags: UInt32(bitPattern: flags))
    }

    /// fdatasync
    public static func synchronizeData(file: Int32) -> Self {
        unsafe Self(.synchronizeData, file: file)
    }

    /// fallocate
    ///
    /// - Parameter mode: FALLOC_FL_ flags.
    public static func allocate(file: Int32, mode: Int32, offset: UInt64, length: UInt64) -> Self {
        unsafe Self(.allocate, file: file, offset: offset, length: length, flags: UInt32(bitPattern: mode))
    }

    /// BLKDISCARD as a ring command (Linux 6.12 and newer; older kernels answer EINVAL or EOPNOTSUPP).
    public static func discardDevice(file: Int32, offset: UInt64, length: UInt64) -> Self {
        unsafe Self(.discardDevice, file: file, offset: offset, length: length)
    }
}
