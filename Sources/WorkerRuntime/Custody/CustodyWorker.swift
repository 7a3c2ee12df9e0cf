internal import BlockTarget
internal import CLinux
public import Custody
internal import Glibc
public import Logging
public import Platform
public import Telemetry
internal import Uring
internal import VhostUser

/// Why a configuration that a supervisor gives is not understood, as a sentence.
public struct ConfigurationRefusal: Error {
    public var description: String

    public init(_ description: String) { self.description = description }
}

/// How a build of the worker differs from others, to whoever chooses between them.
public struct WorkerBuild: Sendable {
    /// As it calls itself.
    public var version: String
    public var record: RecordFormat

    public init(version: String, record: RecordFormat) {
        self.version = version
        self.record = record
    }

    /// Of this tree.
    public static let current = WorkerBuild(version: "0.1.0", record: .current)
}

/// A worker whose device a supervisor keeps: stands by until nobody has the device, takes it up where the worker before
/// left it, and serves it until it dies or is told to give it up.
///
/// Start, recovery and upgrade are the same routine: a clean start takes up a device whose record is empty.
///
/// Threads: this one, which owns the channel, the connection and the session; the sentinel; and the loops, each of a
/// disk with a thread for its FLUSHes.
public struct CustodyWorker: ~Copyable {
    private let link: SupervisorLink
    private let directory: GivenDirectory?
    private let rings: [Int32]
    private let build: WorkerBuild
    private let log: Logger
    private let journal: JournalSocket
    private let parse: (String) -> Result<WorkerConfiguration, ConfigurationRefusal>
    private let signals: OwnedFD
    private let memoryLoss: EventFD

    /// - Parameters:
    ///   - channel: an inherited descriptor: this worker's end of the channel.
    ///   - rings: inherited descriptors: the device's kernel rings, the last one for the connection.
    ///   - build: what this program is.
    ///   - directory: an inherited descriptor of a directory to share; nil for a disk.
    ///   - confinement: what this process gives up before it hears anything; nil: nothing.
    ///   - journal: where `log` goes as soon as the supervisor has given a way there.
    ///   - parse: reads a configuration as the supervisor spells it.
    /// - Throws: what cannot be had at the start.
    public init(
        channel: Int32, rings: [Int32], directory: Int32? = nil, build: WorkerBuild, confinement: Confinement?,
        log: Logger,
        journal: JournalSocket,
        parse: @escaping (String) -> Result<WorkerConfiguration, ConfigurationRefusal>
    ) throws(SystemError) {
        ignoreBrokenPipes()
        for number in [channel] + rings where fcntl(number, F_GETFD) == -1 {
            throw SystemError(cannot: "use", "file descriptor \(number)", .current)
        }
        let signals = try taking("signals") { () throws(Errno) in try makeSignalDescriptor(for: [SIGTERM, SIGINT]) }
        let memoryLoss = try taking("an eventfd") { () throws(Errno) in try EventFD() }
        _ = try taking("SIGBUS") { () throws(Errno) in try SharedMemoryGuard.install(event: memoryLoss) }
        _ = try taking("fatal signals") { () throws(Errno) in try noteFatalSignals() }
        for number in [channel] + rings { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
        // A share's modes are its driver's. The kernel's threads that carry out for a ring have this mask, too: each
        // takes that of the loop at its own start, which may be long before the loop has made one for itself.
        if directory != nil { umask(0) }
        self.directory = try Self.settle(directory, confinement, log)
        link = SupervisorLink(channel: CustodyChannel(owning: OwnedFD(owning: channel)), log: log)
        self.signals = signals
        self.memoryLoss = memoryLoss
        self.rings = rings
        self.build = build
        self.log = log
        self.journal = journal
        self.parse = parse
    }

    /// Gives up what this process does not need.
    ///
    /// - Returns: the directory that it shares, if it is one that shares one.
    private static func settle(
        _ directory: Int32?, _ confinement: Confinement?, _ log: Logger
    ) throws(SystemError) -> GivenDirectory? {
        var given: GivenDirectory?
        if let directory {
            given = try take(OwnedFD(owning: directory), confinement: confinement, log)
        } else if let confinement {
            try apply(confinement, nil, log)
        }
        guard confinement != nil else { return given }
        _ = try taking("a filter of system calls") { () throws(Errno) in
            try limitSystemCalls(to: directory == nil ? .custody : .share)
        }
        return given
    }

    private static func apply(_ confinement: Confinement, _ tree: Int32?, _ log: Logger) throws(SystemError) {
        for shortcoming in try confinement.apply(root: tree) {
            log.notice("this worker is not kept from everything: \(shortcoming)")
        }
    }

    /// The directory to share, which is all that a confined worker sees from now on.
    ///
    /// - Parameter tree: of mounts of its own, for a confined worker; else the directory itself.
    private static func take(
        _ tree: consuming OwnedFD, confinement: Confinement?, _ log: Logger
    ) throws(SystemError) -> GivenDirectory {
        let number = clinux_open_process_files(confinement == nil ? 1 : 0)
        let processFiles = number >= 0 ? OwnedFD(owning: number) : nil
        var start = tree.number
        if let confinement {
            try apply(confinement, tree.number, log)
            start = AT_FDCWD
        }
        let root = unsafe openat(start, confinement == nil ? "." : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard root >= 0 else { throw SystemError(cannot: "share", "the directory", .current) }
        return GivenDirectory(
            root: OwnedFD(owning: root), processFiles: processFiles, isConfined: confinement != nil)
    }

    /// Serves until told to quit.
    ///
    /// - Throws: why the device cannot be served.
    public consuming func run() throws(SystemError) {
        do {
            guard let text = awaitConfiguration() else { return }
            if let fd = try link.descriptors.take(CustodyKey(.journal)) { journal.adopt(fd) }
            let configuration = try parse(text).get()
            guard let fd = try link.descriptors.duplicate(CustodyKey(.record)) else {
                throw ControlStateError("was not given")
            }
            let record = try SessionRecord(fd, reading: build.record.reads)
            let image = try GivenImage.take(configuration, from: link)
            let takeOver = TakeOver(
                record: record, link: link, ringNumbers: rings, image: image, directory: directory,
                statistics: try configuration.statistics(from: link))
            let sentinel = try Sentinel(record)
            // What it takes to take over must not be fetched page by page while a guest waits.
            record.populate()
            populateProgram()
            var standby = try Standby(ifPossible: configuration, takeOver, signals: signals.number, log)
            link.tell(build.announcement)
            var parked = ParkedLoops()
            while let claim = try awaitDevice(record, sentinel, &standby) {
                journal.setGeneration(claim.generation)
                // What workers share is made by the first one that has the device.
                var ready = try standby.take() ?? Standby(configuration, takeOver, signals: signals.number, log)
                ready.forgetOldSession()
                var tenure = try Tenure(claim, configuration, takeOver, ready, log)
                let isOver = try serve(&tenure, &parked)
                if isOver { return }
                // First the device, for which a guest waits. What comes after has time: this process's threads and the
                // supervisor's would take the CPU that the successor needs. Its `active` may be heard before this.
                sentinel.release()
                pause(milliseconds: Self.courtesyMilliseconds)
                tenure.letGo()
                link.tell(CustodyMessage(.frozen))
                guard awaitThaw() else {
                    // All that is left is to unmap guest memory, and the successor needs the CPU.
                    deferProcess()
                    return
                }
                parked.add(tenure.loops)
                standby = try Standby(ifPossible: configuration, takeOver, signals: signals.number, log)
            }
        } catch {
            link.tell(CustodyMessage(.refused, text: "\(error)"))
            throw error as? SystemError ?? SystemError(cannot: "serve", "the device", nil, advice: "\(error)")
        }
    }

    // MARK: Waiting

    /// How long a successor is left alone with the device before anybody hears of it.
    private static let courtesyMilliseconds: Int32 = 2

    /// A session in which nothing has changed for so long is held ready.
    private static let calmMilliseconds: Int32 = 50

    private enum Wake {
        case order(SupervisorOrder)
        case end
        case other
    }

    /// Waits for an order, a signal, or one of the descriptors.
    ///
    /// - Parameter milliseconds: how long at most; nil: for ever.
    private borrowing func wait(_ numbers: [Int32], milliseconds: Int32? = nil) -> Wake {
        if let order = link.nextOrder() { return .order(order) }
        let channel = link.isClosed ? -1 : link.number
        let ready = waitForAny([signals.number, channel] + numbers, milliseconds: milliseconds)
        if ready.contains(signals.number) { return .end }
        if channel >= 0, ready.contains(channel) {
            link.receive()
            if let order = link.nextOrder() { return .order(order) }
        }
        return .other
    }

    private borrowing func awaitConfiguration() -> String? {
        while true {
            switch wait([]) {
            case .order(.prepare(let text)): return text
            case .order(.quit), .end: return nil
            case .order, .other: if link.isClosed { return nil }
            }
        }
    }

    /// Stands by until the device is nobody's. What comes meanwhile is a sign that the session changes: when nothing
    /// has come for a while, it is replayed anew.
    ///
    /// - Returns: nil when this worker is to end.
    private borrowing func awaitDevice(
        _ record: SessionRecord, _ sentinel: Sentinel, _ standby: inout Standby?
    ) throws -> Claim? {
        sentinel.acquire()
        while true {
            standby?.forgetOldSession()
            let limit: Int32? = standby.map(\.isUpToDate) ?? true ? nil : Self.calmMilliseconds
            switch wait([sentinel.acquiredDescriptor], milliseconds: limit) {
            case .order(.quit), .end: return nil
            case .order: break
            case .other:
                guard let died = try sentinel.takeAcquisition() else {
                    if limit != nil { standby?.catchUp() }
                    continue
                }
                // What was given last is here: the supervisor gives before it confirms to the worker that died.
                link.receive()
                return try Claim(record, build.record, link, predecessorDied: died)
            }
        }
    }

    private borrowing func awaitThaw() -> Bool {
        while true {
            switch wait([]) {
            case .order(.thaw): return true
            case .order(.quit), .end: return false
            case .order, .other: if link.isClosed { return false }
            }
        }
    }

    // MARK: Serving

    /// Serves the device.
    ///
    /// - Returns: false when it was given up and this worker goes on living; true when this worker is to end.
    private borrowing func serve(_ tenure: inout Tenure, _ parked: inout ParkedLoops) throws -> Bool {
        link.tell(CustodyMessage(.active, value: tenure.generation, text: tenure.summary))
        while true {
            let numbers = [tenure.connectionNumber, tenure.channelNumber, memoryLoss.fd.number]
            switch wait(numbers + tenure.settlingNumbers, milliseconds: tenure.patience) {
            case .order(.quit), .end:
                tenure.finish()
                return true
            case .order(.freeze):
                guard let reason = parked.refusal ?? tenure.freeze() else { return false }
                log.warning("the device is not given up: \(reason)")
                link.tell(CustodyMessage(.busy, text: reason))
            case .order(.connection): try tenure.takeConnection()
            case .order(.resize(let order)): tenure.resize(order)
            case .order: break
            case .other:
                if tenure.hasJustSettled() {
                    link.tell(CustodyMessage(.settled))
                    parked.end()
                }
                if memoryLoss.clear() {
                    tenure.disconnect("the front-end has taken away memory that it shares")
                } else {
                    tenure.serveFrontend()
                }
            }
        }
    }
}

/// Loops of tenures that were given up and came back. Their threads live until nothing is under way that they have
/// handed to the kernel, which would cancel it: until the present tenure has nothing left of those before it.
private struct ParkedLoops: ~Copyable {
    private var tenures: [[LoopThread]] = []
    /// Each keeps the guest's memory mapped, and files open.
    private static let most = 3

    /// Why the device is not given up now; nil: it may be.
    var refusal: String? {
        tenures.count < Self.most ? nil : "requests of before the last \(Self.most) failed upgrades are under way still"
    }

    mutating func add(_ loops: [LoopThread]) { tenures.append(loops) }

    mutating func end() {
        for loops in tenures { for loop in loops { _ = loop.stop() } }
        tenures = []
    }
}

extension WorkerBuild {
    /// What a worker says of itself when it is ready.
    fileprivate var announcement: CustodyMessage {
        let (lowest, highest) = (UInt64(record.reads.lowerBound), UInt64(record.reads.upperBound))
        return CustodyMessage(
            .ready, value: lowest | highest << 16 | UInt64(record.writes) << 32, text: version)
    }
}

/// A device that this worker has claimed.
struct Claim {
    let generation: UInt64
    /// What this build has to say of the record that it found.
    let note: String?
    /// The worker before died, with this process number.
    let predecessor: Int32?
    /// By its own fault, while it handled this.
    let suspect: Suspect?
    /// When this worker learnt that the device is its to take, in nanoseconds of CLOCK_MONOTONIC.
    let time = monotonicNanoseconds()

    /// How long the supervisor may take to show the threads of a dying worker; and how often this one tells that it
    /// waits for them.
    private static let exitMilliseconds = 2_000

    /// Claims the device and waits until no thread of the worker before runs any more. One that is in a system call of
    /// a storage that does not answer may take very long: nothing can be done before.
    ///
    /// - Throws: when another was faster, nobody shows the threads, or this worker is to end.
    init(
        _ record: SessionRecord, _ format: RecordFormat, _ link: SupervisorLink, predecessorDied: Bool
    ) throws(SessionRecordError) {
        let (process, threads, owner) = (record.ownerProcess, record.ownerThreads, record.owner)
        predecessor = predecessorDied && owner != 0 ? process : nil
        if let predecessor { try Self.waitForThreads(threads, of: predecessor, link) }
        // On their way out, one of them unmaps all of guest memory: tens of milliseconds for some GiB, on a CPU that is
        // wanted for better things now. A thread that is gone is not found: numbers are not used again so soon.
        if predecessor != nil { threads.forEach(deferThread) }
        suspect = predecessor == nil ? nil : record.life(of: owner).flatMap(Suspect.init)
        generation = try record.claim(from: owner, process: link.ownProcess)
        record.noteFatalSignals(generation)
        note = record.takeUp(format)
    }

    private static func waitForThreads(
        _ threads: [Int32], of process: Int32, _ link: SupervisorLink
    ) throws(SessionRecordError) {
        while true {
            switch link.waitForThreads(threads, of: process, milliseconds: exitMilliseconds) {
            case .stopped: return
            case .unknown:
                throw .system("process \(process) was killed, and nothing tells that its threads have stopped")
            case .running(let thread):
                let text = "process \(process) was killed and cannot end: its thread \(thread) waits for the storage"
                link.tell(CustodyMessage(.waiting, text: text))
                link.receive()
                if link.isToldToQuit { throw .system("this worker was told to end") }
            }
        }
    }
}

extension Suspect {
    /// - Parameter life: of a worker that has died; nil for one whose death was no request's doing.
    init?(_ life: WorkerLife) {
        guard life.fatalSignal != 0 || life.isHung, let request = life.handling else { return nil }
        self.init(request, generation: life.generation)
    }
}
