internal import CLinux
internal import CWire
internal import Glibc
public import Platform
internal import Synchronization
public import Uring

/// A directory of the host as a file system: what serves the requests of one loop.
///
/// The jail: a walk is one component, checked by the decoder, below a directory's descriptor, and never follows a
/// symbolic link; `..` never reaches the host. Descriptors of nodes are O_PATH; only regular files and directories
/// are ever opened for real, by the kernel's handle of exactly that file, never by name.
///
/// Owned by the loop's thread, whose credentials it changes. Nothing allocates after `init`.
@safe public struct Passthrough: ~Copyable, FileSystem {
    let session: ShareSession
    var cache: DescriptorCache
    var credentials = ThreadCredentials()
    /// Answers are put together here; directories are read here, and values of attributes.
    let answer: Mapping
    let listing: Mapping
    private var sweptAt: UInt64 = 0
    /// As the host's user nobody of the driver's: writes take set-ID bits away. 0: the engine has no personalities.
    var killingPersonality: UInt16 = 0
    /// Nobody takes over what this worker leaves in the middle of: no write need go through the engine.
    let isAlone: Bool
    /// Of the request that is carried out: where it notes what it does to the tables.
    var effect = EffectUse.none
    /// The kernel has fchmodat2: found out once.
    var hasChmodByDescriptor = true

    /// Answers of READDIR and extended attributes, at most.
    static var answerBytes: Int { 128 << 10 }
    static var listingBytes: Int { 64 << 10 }
    /// How often an operation is tried again after EAGAIN or EINTR.
    static var maximumAttempts: UInt8 { 64 }

    /// - Parameters:
    ///   - descriptors: of nodes that are kept open for speed, at most.
    ///   - isAlone: no worker goes on with what this one leaves: nothing need go through the engine.
    /// - Throws: when there is no memory.
    public init(_ session: ShareSession, descriptors: Int = 1024, isAlone: Bool = false) throws(Errno) {
        let answer = try Mapping(anonymous: Self.answerBytes + 4096)
        let listing = try Mapping(anonymous: Self.listingBytes)
        self.answer = answer
        self.listing = listing
        cache = DescriptorCache(capacity: descriptors)
        self.session = session
        self.isAlone = isAlone
    }

    /// Room for one name, and for one path, behind the answers.
    var nameScratch: UnsafeMutablePointer<CChar> {
        unsafe (answer.base + Self.answerBytes).assumingMemoryBound(to: CChar.self)
    }
    var pathScratch: UnsafeMutablePointer<CChar> { unsafe nameScratch + 1024 }

    public var agreement: FuseAgreement? { session.agreement }

    /// Writes that take set-ID bits away are carried out without CAP_FSETID.
    public mutating func register<Engine: IOEngine & ~Copyable>(_ engine: inout Engine) {
        credentials.becomeServer()
        credentials.setMayKeepIDs(false)
        killingPersonality = engine.registerPersonality() ?? 0
        credentials.setMayKeepIDs(true)
    }

    public mutating func begin(_ agreement: FuseAgreement) {
        session.reset()
        session.agree(agreement)
        tidy()
    }

    public mutating func end() {
        session.reset()
        tidy()
    }

    public mutating func tidy() {
        session.settle()
        let count = session.forgottenCount.load(ordering: .relaxed)
        guard count != sweptAt else { return }
        sweptAt = count
        let session = self.session
        cache.sweep { node in session.withNodes { $0.slot(of: node) != nil } }
    }

    public mutating func becomeServer() { credentials.becomeServer() }

    public mutating func start(_ call: borrowing FuseCall, _ request: inout FuseRequest) -> FileResult {
        beginEffect(call, request)
        do throws(Errno) {
            // Also of one that has happened, though that has changed what is looked at: whoever asked may have written
            // another request over it since.
            if !session.hasIdentityIDs { try checkStrangers(call, request) }
            return try startNames(call, &request)
        } catch {
            forgetFileOpenedBefore()
            return .failed(error)
        }
    }

    /// Calls on names; the rest goes on.
    private mutating func startNames(
        _ call: borrowing FuseCall, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        switch call {
        case .lookUp(let name): return try lookUp(name, &request)
        case .forget(let count): return forget(request.node, count)
        case .batchForget(let bytes, let count): return batchForget(bytes, count)
        case .getAttributes(let handle): return try getAttributes(handle, &request)
        case .statx(let arguments): return try extendedStatus(arguments, &request)
        case .setAttributes(let arguments): return try setAttributes(arguments, &request)
        case .readLink: return try readLink(&request)
        case .symlink(let name, let target, let extras): return try symlink(name, target, extras, &request)
        case .makeNode(let name, let arguments, let extras): return try makeNode(name, arguments, extras, &request)
        case .makeDirectory(let name, let arguments, let extras):
            return try makeDirectory(name, arguments, extras, &request)
        case .unlink(let name): return try remove(name, flags: 0, &request)
        case .removeDirectory(let name): return try remove(name, flags: AT_REMOVEDIR, &request)
        case .rename(let name, let parent, let newName, let flags):
            return try rename(name, to: parent, newName, flags, &request)
        case .link(let node, let name): return try link(node, name, &request)
        case .create(let name, let arguments, let extras): return try create(name, arguments, extras, &request)
        case .temporaryFile(let arguments, let extras): return try createTemporary(arguments, extras, &request)
        default: return try startFiles(call, &request)
        }
    }

    /// Calls on nodes and open files.
    private mutating func startFiles(
        _ call: borrowing FuseCall, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        switch call {
        case .open(let arguments): return try open(arguments, &request)
        case .read(let arguments): return try read(arguments, &request)
        case .write(let arguments): return try write(arguments, &request)
        case .statistics: return try statistics(&request)
        case .release(let arguments): return try release(arguments, .file, &request)
        case .flush(let arguments): return try flush(arguments, &request)
        case .synchronize(let arguments): return try synchronize(arguments, .file, &request)
        case .openDirectory(let arguments): return try openDirectory(arguments, &request)
        case .readDirectory(let arguments, let plus): return try readDirectory(arguments, plus: plus, &request)
        case .releaseDirectory(let arguments): return try release(arguments, .directory, &request)
        case .synchronizeDirectory(let arguments): return try synchronize(arguments, .directory, &request)
        case .synchronizeAll: return try synchronizeAll(&request)
        case .setAttribute(let name, let value, let arguments):
            return try setAttribute(name, value, arguments, &request)
        case .getAttribute(let name, let size): return try getAttribute(name, size, &request)
        case .listAttributes(let size): return try listAttributes(size, &request)
        case .removeAttribute(let name): return try removeAttribute(name, &request)
        case .getLock(let arguments): return try getLock(arguments, &request)
        case .setLock(let arguments, let waits): return try setLock(arguments, waits: waits, &request)
        case .access(let mask): return try access(mask, &request)
        case .allocate(let arguments): return try allocate(arguments, &request)
        case .seek(let arguments): return try seek(arguments, &request)
        case .copyRange(let arguments, let tellsLong): return try copyRange(arguments, tellsLong, &request)
        case .interrupt(let unique):
            session.interrupts.add(unique)
            return .silent
        default: throw .noSuchCall
        }
    }

    public mutating func finish(_ request: inout FuseRequest, result: Int32) -> FileResult {
        effect = effectUse(of: request)
        return switch Stage(rawValue: request.stage) {
        case .reading: finishRead(&request, result)
        case .writing: finishWrite(&request, result)
        case .synchronizing: finishPlain(&request, result)
        case .names: finishNames(&request, result)
        case .making, .creating, .makingFile, .makingSpecial: finishMaking(&request, result)
        case .idle, nil: .failed(.inputOutput)
        }
    }
}

/// What a request waits for in the engine.
enum Stage: UInt8 {
    case idle
    case reading, writing
    /// fsync or fallocate
    case synchronizing
    /// A change of names.
    case names
    /// A new name, which is looked for when it is there.
    case making
    /// The same of a file that is opened with it, for CREATE and for MKNOD.
    case creating, makingFile
    /// The same of a special file, which has a name of its own until then.
    case makingSpecial
}

/// A lock that is waited for.
struct WaitingLock {
    var handle: UInt64 = 0
    var type: Int16 = 0
    var start: Int64 = 0
    var length: Int64 = 0
    var isFlock = false
}

extension Passthrough {
    /// A structure as the answer: in `answer`, until the next call.
    func told<Value: BitwiseCopyable>(_ value: Value) -> FileResult {
        unsafe answer.base.storeBytes(of: value, as: Value.self)
        return .bytes(unsafe FuseBytes(base: answer.base, count: MemoryLayout<Value>.size))
    }
}

/// What CREATE is answered with.
struct CreatedAnswer: BitwiseCopyable {
    var entry: wire_fuse_entry_out
    var open: wire_fuse_open_out
}
