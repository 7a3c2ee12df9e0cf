internal import Custody
internal import Logging
internal import Platform
internal import Uring

/// A ring that is mapped, and that nobody uses yet.
private final class ReadyRing {
    var ring: Ring?
}

/// What a worker has ready before it has the device, so that little is left to be done while a guest waits: loops with
/// their threads, kernel rings and bounce buffers mapped; and the session as it was committed last, with guest memory
/// mapped. Nothing of all that is touched.
struct Standby {
    let device: ServedDevice
    private(set) var replay: Replay?
    private let takeOver: TakeOver
    private let journal = ReadyRing()
    /// The commit that could not be replayed: it is not tried again.
    private var failed: UInt64?

    /// - Parameter signals: a descriptor whose input ends a wait for the storage.
    /// - Throws: why the device could not be served.
    init(_ configuration: WorkerConfiguration, _ takeOver: TakeOver, signals: Int32, _ log: Logger) throws(SystemError)
    {
        self.takeOver = takeOver
        device = try configuration.makeDevice(
            log: log, signals: signals, statistics: takeOver.statistics, takeOver: takeOver)
    }

    /// The connection's ring, mapped while nobody waited for that if it is the first time.
    func takeJournalRing() throws(SystemError) -> Ring {
        if let ready = journal.ring.take() { return ready }
        return try takeOver.journalRing()
    }

    /// Nil while something is missing that workers share: whoever has the device makes it, before this one is started.
    init?(
        ifPossible configuration: WorkerConfiguration, _ takeOver: TakeOver, signals: Int32, _ log: Logger
    ) throws(SystemError) {
        guard takeOver.hasAll(for: configuration) else { return nil }
        try self.init(configuration, takeOver, signals: signals, log)
        journal.ring = try takeOver.journalRing()
        catchUp()
    }

    /// Whether the worker that has the device has committed nothing since the session was replayed.
    var isUpToDate: Bool { (replay?.commit ?? failed) == takeOver.record.commitCount }

    /// Lets go of a session that is no more: its memory is the guest's, or of one that is gone.
    mutating func forgetOldSession() {
        guard !isUpToDate, replay != nil else { return }
        replay = nil
        device.reset(keepingMemory: false)
    }

    /// Replays what is committed, unless it is being changed.
    mutating func catchUp() {
        forgetOldSession()
        guard !isUpToDate else { return }
        let commit = takeOver.record.commitCount
        do {
            let new = try Replay(takeOver, on: device)
            // An exchange is under way, or another commit has come meanwhile: the next attempt will do.
            if new.exchange == nil, new.commit == takeOver.record.commitCount { replay = new }
        } catch {
            // Whoever takes the device up finds the same, and says so.
            failed = commit
        }
        if replay == nil { device.reset(keepingMemory: false) }
    }
}
