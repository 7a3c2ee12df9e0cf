internal import Custody
public import Platform
internal import Synchronization

/// The supervisor of all devices: its custody thread, as other threads see it.
///
/// Every call returns at once; its reply comes on the custody thread and must not wait there.
public final class Supervisor: Sendable {
    let mailbox: Mailbox
    /// Why no share can be served, as a sentence that says what to do; nil when shares can be.
    public let whyNoShares: String?
    private let lastFollower = Atomic<UInt64>(0)

    /// What a supervisor is made of.
    public struct Options: ~Copyable {
        /// Of the worker.
        public var programPath: String
        /// Where workers write their logs.
        public var workerOutput: OwnedFD
        /// Belongs to the custody thread from now on.
        public var store: any FDStore
        public var coder: StateCoder
        /// How long a worker's loop may leave work undone before the worker is killed, in milliseconds; 0: for ever.
        public var hangMilliseconds: UInt64 = 10_000
        /// A socket to the journal, which workers get a duplicate of; nil: there is none.
        public var journal: Int32?
        /// nil: workers run in the supervisor's own control group.
        public var workerGroups: WorkerGroups?
        /// What workers are kept from.
        public var sandbox = WorkerSandbox(.off)

        public init(
            programPath: String, workerOutput: consuming OwnedFD, store: any FDStore, coder: StateCoder,
            workerGroups: WorkerGroups? = nil
        ) {
            self.programPath = programPath
            self.workerOutput = workerOutput
            self.store = store
            self.coder = coder
            self.workerGroups = workerGroups
        }
    }

    /// Takes over what the store has from a supervisor before, and starts the custody thread.
    ///
    /// - Throws: what failed, and what to do.
    public init(_ options: consuming Options) throws(SystemError) {
        ignoreBrokenPipes()
        whyNoShares = options.sandbox.whyNoShares
        do throws(Errno) {
            mailbox = try Mailbox()
        } catch {
            throw SystemError(cannot: "set up", "the mailbox", error)
        }
        let loop = Handover(try CustodyLoop(options, mailbox: mailbox))
        do throws(Errno) {
            let thread = try JoinableThread(name: "custody") { loop.take().serve() }
            thread.detach()
        } catch {
            throw SystemError(cannot: "start", "the custody thread", error)
        }
    }

    /// Takes a device into custody and starts a worker for it.
    ///
    /// - Parameter isRestored: it was made by an earlier supervisor: without its image it waits, and says so.
    public func create(
        _ configuration: DeviceConfiguration, isRestored: Bool = false,
        reply: @escaping @Sendable (Result<DeviceStatus, SupervisorError>) -> Void
    ) {
        mailbox.post { loop in
            reply(Result { () throws(SupervisorError) in try loop.create(configuration, isRestored: isRestored) })
        }
    }

    /// Ends a device: its workers finish what they have, the front-end's connection is closed.
    ///
    /// - Parameter sparesMounts: what is mounted on this host is refused: its users would find it broken.
    public func delete(
        _ name: String, sparesMounts: Bool = false,
        reply: @escaping @Sendable (Result<Void, SupervisorError>) -> Void
    ) {
        mailbox.post { $0.delete(name, sparesMounts: sparesMounts, reply: reply) }
    }

    /// The state of one device, or of all in the order of their names.
    public func status(
        _ name: String?, reply: @escaping @Sendable (Result<[DeviceStatus], SupervisorError>) -> Void
    ) {
        mailbox.post { loop in
            reply(Result { () throws(SupervisorError) in try loop.statuses(name) })
        }
    }

    /// SIGKILLs the worker that has a device: for drills. The reply is its process.
    public func kill(_ name: String, reply: @escaping @Sendable (Result<Int32, SupervisorError>) -> Void) {
        mailbox.post { loop in
            reply(Result { () throws(SupervisorError) in try loop.kill(name) })
        }
    }

    /// Replaces the workers' program, one device at a time; stops at the first failure.
    ///
    /// - Parameters:
    ///   - devices: names; none means all, and those that are made later.
    ///   - programPath: nil for the present path, where a new program may lie by now.
    ///   - canaries: so many devices first; the others follow when these have run the new program for 5 s. 0: no test.
    ///   - isDryRun: starts each new worker and asks whether it could take over; goes no further.
    ///   - progress: told of each device.
    public func upgrade(
        _ devices: [String], programPath: String?, canaries: Int, isDryRun: Bool,
        progress: @escaping @Sendable (UpgradeProgress) -> Void,
        reply: @escaping @Sendable (Result<[UpgradeProgress], SupervisorError>) -> Void
    ) {
        let request = UpgradeRequest(
            devices: devices, programPath: programPath, canaries: canaries, isDryRun: isDryRun, progress: progress,
            reply: reply)
        mailbox.post { $0.upgrade(request) }
    }

    /// Tells `sink` of the last events, and of each new one until `unfollow`.
    ///
    /// - Returns: what `unfollow` wants.
    public func follow(_ sink: @escaping @Sendable (SupervisorEvent) -> Void) -> UInt64 {
        let id = lastFollower.wrappingAdd(1, ordering: .relaxed).newValue
        mailbox.post { $0.follow(id, sink) }
        return id
    }

    public func unfollow(_ id: UInt64) {
        mailbox.post { $0.unfollow(id) }
    }

    /// Ends the custody thread. Workers live on.
    ///
    /// - Parameter forSuccessor: another supervisor follows at once.
    public func stop(forSuccessor: Bool, reply: @escaping @Sendable () -> Void) {
        mailbox.post { loop in
            loop.stop(forSuccessor: forSuccessor)
            reply()
        }
    }
}

/// Commands from other threads to the custody thread.
final class Mailbox: Sendable {
    private let waiting = Mutex<[@Sendable (CustodyLoop) -> Void]>([])
    private let bell: EventFD

    init() throws(Errno) { bell = try EventFD() }

    /// Readable when something waits.
    var descriptor: Int32 { bell.fd.number }

    func post(_ command: @escaping @Sendable (CustodyLoop) -> Void) {
        waiting.withLock { $0.append(command) }
        bell.signal()
    }

    func takeAll() -> [@Sendable (CustodyLoop) -> Void] {
        bell.clear()
        return waiting.withLock { commands in
            let all = commands
            commands = []
            return all
        }
    }
}

/// Moves what belongs to one thread to it.
private final class Handover: @unchecked Sendable {
    private let loop: CustodyLoop

    init(_ loop: consuming CustodyLoop) { self.loop = loop }

    /// Called once, by the thread that keeps it.
    func take() -> CustodyLoop { loop }
}
