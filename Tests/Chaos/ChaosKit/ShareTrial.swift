internal import ControlAPI
internal import FrontendKit
internal import Glibc
internal import Platform
internal import Synchronization
internal import TestSupport

/// One share under a verifying load of many clients, whose workers are killed and upgraded while they serve; the
/// front-end connects once.
public struct ShareTrial {
    private let options: ChaosOptions

    /// How long a device may take to come back, in nanoseconds.
    private static let patience: UInt64 = 30_000_000_000

    /// - Parameter options: of the disturbances, `kills` and `upgrades`; of the rest, all that is not about disks.
    public init(_ options: ChaosOptions) { self.options = options }

    /// Carries it out.
    ///
    /// - Throws: what kept it from being carried out; what it found is in the report.
    public func run() throws -> ChaosReport {
        var device = try SupervisedDevice(sharing: options)
        do {
            let report = try run(&device)
            device.end()
            return report
        } catch {
            let words = ((try? device.log()) ?? "").split(separator: "\n").suffix(10).joined(separator: "\n")
            device.end()
            throw SystemError(cannot: "go on", "", nil, advice: "\(error). Supervisor and workers said last:\n\(words)")
        }
    }

    private func run(_ device: inout SupervisedDevice) throws -> ChaosReport {
        try device.waitForSocket()
        let load = RunningFileLoad(device.socketPath, options)
        let thread = try JoinableThread(name: "load") { load.run() }
        // It makes its files first.
        while load.monitor.completedRequests == 0, !load.hasEnded { usleep(1000) }
        let watch = StandstillWatch()
        let supervisor = device.supervisorProcess
        let watching = try JoinableThread(name: "watch") { watch.run(supervisor) }
        var report = ChaosReport()
        let outcome = Result { try disturb(&device, load, watch, &report) }
        report.slowest = load.monitor.takeSlowest()
        load.monitor.requestStop()
        let tables = Result { try checkTables(&device, load, &report) }
        load.leave()
        thread.join()
        watch.end()
        watching.join()
        for seen in watch.reports { report.note(seen) }
        load.add(to: &report)
        try outcome.get()
        try tables.get()
        let status = try device.status()
        if status.connections != 1 { report.fail("the front-end was connected \(status.connections) times") }
        if let problem = status.problem { report.fail("the supervisor has a problem: \(problem)") }
        report.recovered = WorkerWords.takeOvers(in: try device.log())
        return report
    }

    /// The driver has forgotten nearly everything, and is still there: so much do the tables know.
    private func checkTables(
        _ device: inout SupervisedDevice, _ load: RunningFileLoad, _ report: inout ChaosReport
    ) throws {
        let end = monotonicNanoseconds() + Self.patience
        while !load.hasEnded, monotonicNanoseconds() < end { usleep(1000) }
        guard let expected = load.report else { return }
        let files = try device.status(statistics: true).statistics?.files
        let (nodes, open) = (files?.nodes ?? 0, files?.openFiles ?? 0)
        guard nodes != UInt64(expected.knownNodes) || open != UInt64(expected.openFiles) else { return }
        report.fail(
            "the tables have \(nodes) nodes and \(open) open files, the driver knows \(expected.knownNodes) and has "
                + "\(expected.openFiles)")
    }

    private enum Disturbance { case kill, upgrade }

    private func disturb(
        _ device: inout SupervisedDevice, _ load: RunningFileLoad, _ watch: StandstillWatch,
        _ report: inout ChaosReport
    ) throws {
        var random = SeededGenerator(seed: options.seed &+ 1)
        var plan = Array(repeating: Disturbance.kill, count: options.kills)
        plan += Array(repeating: .upgrade, count: options.upgrades)
        plan.shuffle(using: &random)
        let programs =
            options.upgrades > 0 ? [try device.copyWorker(as: "worker-a"), try device.copyWorker(as: "worker-b")] : []
        var victim: Int32 = 0
        for disturbance in plan where !load.hasEnded {
            watch.step()
            victim = try device.waitForActive(after: victim, withStandby: true, patience: Self.patience)
            waitForMoment(load, &random)
            switch disturbance {
            case .upgrade:
                _ = load.monitor.takeLongestPause()
                let failure = try device.upgrade(to: programs[report.upgrades % 2])
                report.standstills.append(load.monitor.takeLongestPause())
                // From the freeze until the successor takes requests, as both have noted it.
                if let gap = try device.status(statistics: true).statistics?.lastGap, gap.cause == "hand-over" {
                    report.pauses.append(gap.nanoseconds)
                }
                report.upgrades += 1
                if let failure { report.fail("an upgrade failed: \(failure)") }
            case .kill:
                guard try kill(victim, load, &report) else { return }
            }
        }
    }

    /// Kills the worker in the middle of whatever it does.
    ///
    /// - Returns: whether the device was served again.
    private func kill(_ victim: Int32, _ load: RunningFileLoad, _ report: inout ChaosReport) throws -> Bool {
        let end = monotonicNanoseconds() + Self.patience
        Glibc.kill(victim, SIGKILL)
        load.monitor.setMark()
        while monotonicNanoseconds() < end, !load.hasEnded {
            if let gap = load.monitor.nanosecondsSinceMark {
                report.kills += 1
                report.gaps.append(gap)
                return true
            }
            usleep(100)
        }
        if !load.hasEnded { report.fail("nothing was served for 30 s after the death of \(victim)") }
        return false
    }

    /// Some completions later.
    private func waitForMoment(_ load: RunningFileLoad, _ random: inout SeededGenerator) {
        let due = load.monitor.completedRequests + Int(random.next(below: 1000))
        while load.monitor.completedRequests < due, !load.hasEnded { usleep(50) }
    }
}

/// A verifying load of a share, in a thread of its own.
private final class RunningFileLoad: Sendable {
    let monitor = LoadMonitor()
    private let path: String
    private let options: VerifiedFileLoad.Options
    private let result = Mutex<Result<FileLoadReport, any Error>?>(nil)
    private let mayLeave = Atomic<Bool>(false)

    init(_ path: String, _ chaos: ChaosOptions) {
        self.path = path
        var options = VerifiedFileLoad.Options(seed: chaos.seed)
        options.queueCount = chaos.queueCount
        options.clients = 32
        options.knownNodes = chaos.knownNodes
        options.requestLimit = nil
        self.options = options
    }

    /// Runs to the end, and stays connected until `leave`.
    func run() {
        do {
            var load = try VerifiedFileLoad(connectingTo: path, options, monitor: monitor)
            let report = try load.run()
            try load.checkConnection()
            result.withLock { $0 = .success(report) }
            while !mayLeave.load(ordering: .acquiring) { usleep(1000) }
        } catch {
            result.withLock { $0 = .failure(error) }
        }
    }

    func leave() { mayLeave.store(true, ordering: .releasing) }

    var hasEnded: Bool { result.withLock { $0 != nil } }
    /// What it has found, when it has ended well.
    var report: FileLoadReport? { result.withLock { try? $0?.get() } }

    /// Adds what it has found; to be called when its thread has ended.
    func add(to report: inout ChaosReport) {
        switch result.withLock({ $0 }) {
        case .success(let load): report.take(load)
        case .failure(let error as LoadError): report.take(error)
        case .failure(let error): report.fail("\(error)")
        case nil: preconditionFailure("it has ended without a result")
        }
    }
}
