public import CWire
public import Platform
public import Uring

/// The seam between the server and what it serves: the host's directory (`Passthrough`), or a test's.
///
/// One loop owns one. A request is started once; what it answers at once it answers from `start`. One whose operation
/// the engine carries out gets its result in `finish`, until something else than an operation comes back. Whatever is
/// needed in between is in the request.
public protocol FileSystem: ~Copyable {
    /// What INIT has agreed on; nil before.
    var agreement: FuseAgreement? { get }

    /// Registers with the engine as whom it is to carry out some operations. Once, before anything is started.
    mutating func register<Engine: IOEngine & ~Copyable>(_ engine: inout Engine)

    /// A driver begins: whatever one before knew is forgotten.
    mutating func begin(_ agreement: FuseAgreement)

    /// The driver ends.
    mutating func end()

    /// Carries out a call.
    ///
    /// - Parameter call: what it points to lies still until this returns.
    mutating func start(_ call: borrowing FuseCall, _ request: inout FuseRequest) -> FileResult

    /// Goes on with a request whose operation has completed.
    ///
    /// - Parameter result: a count, or a negative error number.
    mutating func finish(_ request: inout FuseRequest, result: Int32) -> FileResult

    /// The thread is itself again, after an operation as a driver's user has been handed over.
    mutating func becomeServer()

    /// Goes on with a request that waits.
    mutating func resume(_ request: inout FuseRequest) -> FileResult

    /// Lets go of what is held for nobody: once a turn of the loop, before answers are shown.
    mutating func tidy()
}

/// What a file system says to a call.
@safe public enum FileResult {
    /// The host's error number.
    case failed(Errno)
    /// It was done; there is nothing to tell.
    case done
    /// To requests that get no answer (FORGET).
    case silent
    case opened(wire_fuse_open_out)
    case written(UInt32)
    /// So many bytes are in the request's vectors.
    case data(UInt32)
    /// In memory of the file system, until its next call. Structures, too, but for small ones: results are handed from
    /// function to function, and a large one is copied each time.
    case bytes(FuseBytes)
    /// How many bytes there would be.
    case size(UInt32)
    case position(UInt64)
    case lock(wire_fuse_file_lock)
    /// The engine is to carry it out; `finish` gets its result.
    case operation(IOOperation)
    /// The same, as whom the thread works now: it is to be handed over at once, and then `becomeServer`.
    case operationAsDriver(IOOperation)
    /// The engine does not take such an operation: `start` is to come again, and does without it.
    case again
    /// For something that another request does: `resume` comes.
    case waiting
}
