internal import FrontendKit
internal import Glibc
internal import Platform
internal import Synchronization
public import TestSupport

/// A front-end under load whose worker is killed and started again, over and over.
public struct KillTrial: Sendable {
    public var medium: KillMedium
    public var queueCount = 1
    public var seed: UInt64
    public var rings: RingKind
    /// Kills to come.
    public var kills: Int
    /// Loops that the queues are shared out to.
    public var threadCount: Int { queueCount > 1 ? 2 : 1 }

    public init(
        _ medium: KillMedium, queueCount: Int, rings: RingKind = .split, kills: Int, seed: UInt64
    ) {
        self.rings = rings
        self.medium = medium
        self.queueCount = queueCount
        self.kills = kills
        self.seed = seed
    }

    /// Runs it.
    ///
    /// - Throws: when something that the trial itself needs is not there.
    public func run() throws -> KillReport {
        let directory = try TemporaryDirectory()
        let storage = try KillStorage(medium, in: directory)
        var session = try KillSession(self, storage, in: directory)
        var random = SeededGenerator(seed: seed)
        var done = 0
        while done < kills, !session.load.hasEnded {
            session.waitForRequests(Int(random.next(below: medium.requestsBetweenKills)))
            let aim = aim(ofKill: done)
            do {
                try session.kill(aim, queue: Int(random.next(below: UInt64(queueCount))), storage, in: directory)
            } catch {
                throw KillFailure("kill \(done), at '\(aim.rawValue)': \(error); \(session.lastWords)")
            }
            done += aim.isInRecovery ? 2 : 1
        }
        return session.finish()
    }

    /// Every second kill is a random one; the aims take turns, wherever the seed lets them begin.
    private func aim(ofKill number: Int) -> KillAim {
        let turn = Int(seed % 97) + number / 2
        if number % 2 == 0 { return turn % 2 == 0 ? .looked : .blind }
        let (aimed, inRecovery) = (KillAim.aimed(rings), KillAim.inRecovery(rings))
        if turn % 3 == 2, number + 2 <= kills { return inRecovery[turn / 3 % inRecovery.count] }
        return aimed[(turn - turn / 3) % aimed.count]
    }
}

/// Why a trial could not go on.
struct KillFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// The front-end, the load and the present worker of a trial.
struct KillSession: ~Copyable {
    let load: RunningLoad
    private let thread: JoinableThread
    private var rig: Rig
    private var worker: WorkerProcess
    private let inflight: InflightMapping
    private let arguments: [String]
    private let threadCount: Int
    private var workerCount = 1
    private var report = KillReport()

    init(
        _ trial: KillTrial, _ storage: borrowing KillStorage, in directory: borrowing TemporaryDirectory
    ) throws {
        arguments = ["--queues=\(trial.queueCount)", "--threads=\(trial.threadCount)", "--log-level=warning"]
        threadCount = trial.threadCount
        let worker = try storage.start(arguments, number: 1, in: directory)
        var rig = try Rig(
            connectingTo: worker.socketPath, behaviour: trial.rings.behaviour, queueCount: trial.queueCount,
            memorySize: 64 << 20)
        guard rig.frontend.usesPackedRings == (trial.rings == .packed) else {
            throw KillFailure("the worker does not offer \(trial.rings) rings")
        }
        guard let inflight = try rig.frontend.mapInflight() else {
            throw SystemError(cannot: "find", "the inflight region", nil)
        }
        var options = VerifiedLoad.Options(seed: trial.seed, sectors: trial.medium.sectors)
        options.overlapping = true
        options.depth = 32
        options.requestLimit = nil
        options.usesInterrupts = false
        options.stallLimit = 120_000
        options.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
        trial.medium.adapt(&options)
        let verified = VerifiedLoad(
            rig.endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: options, in: &rig.allocator)
        let load = try RunningLoad(verified)
        thread = try JoinableThread(name: "load") { load.run() }
        self.load = load
        self.worker = worker
        self.inflight = inflight
        self.rig = rig
    }

    /// What the workers have printed last.
    var lastWords: String { worker.program.output.split(separator: "\n").suffix(5).joined(separator: "\n") }

    /// Waits until so many more requests have completed: kills come at moments that nobody chose.
    func waitForRequests(_ count: Int) {
        let due = load.monitor.completedRequests + count
        while load.monitor.completedRequests < due, !load.hasEnded { usleep(50) }
        // The driver is slower than fast storage: without this, most kills would find nothing to hit.
        let end = monotonicNanoseconds() + 100_000_000
        while !rig.endpoints.indices.contains(where: { view(of: $0).hit.taken > 0 }), monotonicNanoseconds() < end {}
    }

    /// Kills the worker, and its successor too if the aim is in recovery; then there is a new one.
    mutating func kill(
        _ aim: KillAim, queue: Int, _ storage: borrowing KillStorage, in directory: borrowing TemporaryDirectory
    ) throws {
        guard aim.isInRecovery else {
            try killRunning(aim, queue: queue)
            return try restart(storage, in: directory, beforeQueues: nil)
        }
        try killRunning(aim.predecessor, queue: queue)
        try killRecovering(aim, queue: queue, storage, in: directory)
        try restart(storage, in: directory, beforeQueues: nil)
    }

    private func view(of queue: Int) -> any QueueView {
        let endpoint = rig.endpoints[queue]
        return endpoint.isPacked
            ? PackedQueueView(endpoint, queue: queue, inflight: inflight)
            : SplitQueueView(endpoint, queue: queue, inflight: inflight)
    }

    private mutating func killRunning(_ aim: KillAim, queue: Int) throws {
        var operations: (running: Int, done: Int)?
        var isReached = true
        if aim == .blind {
            worker.program.send(signal: SIGKILL)
        } else {
            let shot = try KillShot(aim, view(of: queue), loop: queue % threadCount, ofProcess: worker.program.pid)
            isReached = shot.reach()
            operations = shot.kill()
        }
        note(aim, isReached, operations)
    }

    /// Starts a successor and kills it while it takes up the queues.
    private mutating func killRecovering(
        _ aim: KillAim, queue: Int, _ storage: borrowing KillStorage, in directory: borrowing TemporaryDirectory
    ) throws {
        var shot: KillShot?
        var failure: SystemError?
        let view = view(of: queue)
        let loop = queue % threadCount
        try restart(storage, in: directory) { pid in
            do throws(SystemError) {
                shot = try KillShot(aim, view, loop: loop, ofProcess: pid)
            } catch {
                failure = error
            }
        }
        guard let aimed = shot.take() else {
            throw failure ?? SystemError(cannot: "trace", "the successor", nil)
        }
        let isReached = aimed.reach()
        note(aim, isReached, aimed.kill())
    }

    /// Waits for the end of the worker that was killed, and says what it has left.
    private mutating func note(_ aim: KillAim, _ isReached: Bool, _ operations: (running: Int, done: Int)?) {
        worker.program.wait(milliseconds: 60_000)
        var hit = KillHit()
        for queue in rig.endpoints.indices { hit.add(view(of: queue).hit) }
        hit.running = operations?.running
        hit.done = operations?.done
        report[aim].count(hit, missed: !isReached)
    }

    private mutating func restart(
        _ storage: borrowing KillStorage, in directory: borrowing TemporaryDirectory,
        beforeQueues: ((Int32) -> Void)?
    ) throws {
        for endpoint in rig.endpoints { endpoint.call.clear() }
        unsafe unlink(worker.socketPath)
        workerCount += 1
        worker = try storage.start(arguments, number: workerCount, in: directory)
        let pid = worker.program.pid
        try rig.frontend.reconnect(beforeQueues: beforeQueues.map { hook in { hook(pid) } })
        guard beforeQueues == nil else { return }
        // The worker before may have died between a publication and its interrupt.
        for endpoint in rig.endpoints where !waitForInput(endpoint.call.fd.number, milliseconds: 60_000) {
            report.missedInterrupts += 1
        }
    }

    /// Ends the load, and says what it and the kills have found.
    consuming func finish() -> KillReport {
        load.monitor.requestStop()
        thread.join()
        load.add(to: &report)
        return report
    }
}

/// A verifying load for a thread of its own.
final class RunningLoad: Sendable {
    let monitor = LoadMonitor()
    private let load: VerifiedLoad
    private let result = Mutex<Result<LoadReport, LoadError>?>(nil)
    private let ended: EventFD

    init(_ load: VerifiedLoad) throws {
        self.load = load
        ended = try EventFD()
    }

    func run() {
        do throws(LoadError) {
            let report = try load.run(monitor: monitor)
            result.withLock { $0 = .success(report) }
        } catch {
            result.withLock { $0 = .failure(error) }
        }
        ended.signal()
    }

    var hasEnded: Bool { waitForInput(ended.fd.number, milliseconds: 0) }

    /// Adds what it has found; to be called when its thread has ended.
    func add(to report: inout KillReport) {
        switch result.withLock({ $0 }) {
        case .success(let load): report.take(load)
        case .failure(let error): report.take(error)
        case nil: preconditionFailure("it has ended without a result")
        }
    }
}
