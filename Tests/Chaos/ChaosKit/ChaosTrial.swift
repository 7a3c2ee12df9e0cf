internal import ControlAPI
internal import FrontendKit
internal import Glibc
internal import Platform
internal import Synchronization
internal import TestSupport
internal import Virtio

/// One disk under a verifying load, whose workers are killed and replaced; the front-end connects once.
public struct ChaosTrial {
    private let options: ChaosOptions

    public init(_ options: ChaosOptions) {
        self.options = options
    }

    /// Carries it out.
    ///
    /// - Throws: what kept it from being carried out; what it found is in the report.
    public func run() throws -> ChaosReport {
        var disk = try SupervisedDisk(options)
        do {
            let report = try run(&disk)
            disk.end()
            return report
        } catch {
            let words = ((try? disk.log()) ?? "").split(separator: "\n").suffix(10).joined(separator: "\n")
            disk.end()
            throw SystemError(cannot: "go on", "", nil, advice: "\(error). Supervisor and workers said last:\n\(words)")
        }
    }

    private func run(_ disk: inout SupervisedDisk) throws -> ChaosReport {
        let behaviour = (options.isPacked ? RingKind.packed : .split).behaviour
        try waitForSocket(disk.socketPath)
        var rig = try Rig(
            connectingTo: disk.socketPath, behaviour: behaviour, queueCount: options.queueCount,
            memorySize: max(options.memoryGiB << 30, 64 << 20))
        touch(rig.memory)
        let load = RunningLoad(try makeLoad(&rig))
        let thread = try JoinableThread(name: "load") { load.run() }
        let watch = StandstillWatch()
        let supervisor = disk.supervisorProcess
        let watching = try JoinableThread(name: "watch") { watch.run(supervisor) }
        var report = ChaosReport()
        let outcome = Result { try disturb(&disk, load, watch, &report) }
        load.monitor.requestStop()
        thread.join()
        watch.end()
        watching.join()
        watch.reports.forEach { report.note($0) }
        load.add(to: &report)
        try outcome.get()
        check(&disk, rig, &report)
        report.recovered = WorkerWords.takeOvers(in: try disk.log())
        if !report.isClean { report.note(lastWordsOf: try disk.log()) }
        return report
    }

    private func waitForSocket(_ path: String) throws {
        let end = monotonicNanoseconds() + 10_000_000_000
        while !TestFile.exists(path) {
            guard monotonicNanoseconds() < end else { throw SystemError(cannot: "find", path, nil) }
            pause(milliseconds: 2)
        }
    }

    /// As a guest that has used all of its memory.
    private func touch(_ memory: FrontendKit.GuestMemory) {
        guard options.memoryGiB > 0 else { return }
        for region in memory.regions {
            let description = region.description
            memory.fill(0, count: Int(description.size), at: description.guestAddress)
        }
    }

    private func makeLoad(_ rig: inout Rig) throws -> VerifiedLoad {
        var load = VerifiedLoad.Options(seed: options.seed, sectors: 0..<UInt64(SupervisedDisk.size / 512))
        load.overlapping = true
        load.depth = 32
        load.requestLimit = nil
        load.usesInterrupts = options.usesInterrupts
        load.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
        return VerifiedLoad(
            rig.endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: load, in: &rig.allocator)
    }

    /// Whether the front-end is still where it was.
    private func check(_ disk: inout SupervisedDisk, _ rig: borrowing Rig, _ report: inout ChaosReport) {
        do {
            _ = try rig.frontend.readBlockConfiguration()
            let status = try disk.status()
            if status.connections != 1 { report.fail("the front-end was connected \(status.connections) times") }
            if let problem = status.problem { report.fail("the supervisor has a problem: \(problem)") }
        } catch {
            report.fail("the front-end's connection is gone: \(error)")
        }
    }
}

// MARK: - Disturbances

extension ChaosTrial {
    private enum Disturbance { case kill, trap, upgrade }

    /// How long a device may take to come back, in nanoseconds.
    private static let patience: UInt64 = 30_000_000_000

    /// Kills and upgrades at random moments of the load.
    private func disturb(
        _ disk: inout SupervisedDisk, _ load: RunningLoad, _ watch: StandstillWatch, _ report: inout ChaosReport
    ) throws {
        var random = SeededGenerator(seed: options.seed &+ 1)
        var plan = Array(repeating: Disturbance.kill, count: options.kills)
        plan += Array(repeating: .trap, count: options.traps)
        plan += Array(repeating: .upgrade, count: options.upgrades)
        plan.shuffle(using: &random)
        let programs =
            options.upgrades > 0 ? [try disk.copyWorker(as: "worker-a"), try disk.copyWorker(as: "worker-b")] : []
        var victim: Int32 = 0
        for disturbance in plan where !load.hasEnded {
            watch.step()
            let isCold = disturbance != .upgrade && random.next(below: 8) < options.coldKillsOfEight
            victim = try waitForActive(&disk, after: victim, withStandby: !isCold)
            waitForRequests(Int(random.next(below: 1000)), load, microseconds: random.next(below: 300))
            switch disturbance {
            case .kill, .trap:
                kill(victim, disturbance == .kill ? SIGKILL : SIGTRAP)
                load.monitor.setMark()
                guard let gap = waitForGap(load) else {
                    if !load.hasEnded { report.fail("nothing was served for 30 s after the death of \(victim)") }
                    return
                }
                if isCold { report.coldGaps.append(gap) } else { report.gaps.append(gap) }
                if disturbance == .kill { report.kills += 1 } else { report.traps += 1 }
            case .upgrade:
                _ = load.monitor.takeLongestPause()
                let failure = try disk.upgrade(to: programs[report.upgrades % 2])
                report.pauses.append(load.monitor.takeLongestPause())
                report.upgrades += 1
                if let failure { report.fail("an upgrade failed: \(failure)") }
            }
        }
    }

    /// Waits until another worker than the last victim has the device, and one stands by.
    ///
    /// - Returns: the process that has the device.
    private func waitForActive(
        _ disk: inout SupervisedDisk, after victim: Int32, withStandby: Bool
    ) throws -> Int32 {
        let end = monotonicNanoseconds() + Self.patience
        while true {
            let status = try disk.status()
            let active = status.workers.first { $0.phase == "active" && $0.pid != victim }
            let isStaffed = !withStandby || status.workers.contains { $0.phase == "standby" }
            if let active, isStaffed, status.upgrade == nil { return active.pid }
            guard monotonicNanoseconds() < end else {
                throw SystemError(cannot: "find", "a worker to kill", nil, advice: "The device is \(status.state)")
            }
            pause(milliseconds: 1)
        }
    }

    /// A moment that nobody chose: so many completions later, then so many microseconds after requests were made
    /// available. Without these, most kills of fast storage's worker would find nothing in flight.
    private func waitForRequests(_ count: Int, _ load: RunningLoad, microseconds: UInt64) {
        let due = load.monitor.completedRequests + count
        while load.monitor.completedRequests < due, !load.hasEnded { usleep(50) }
        let published = load.monitor.publishedRequests
        while load.monitor.publishedRequests == published, !load.hasEnded { spinHint() }
        let end = monotonicNanoseconds() + microseconds * 1000
        while monotonicNanoseconds() < end { spinHint() }
    }

    private func waitForGap(_ load: RunningLoad) -> UInt64? {
        let end = monotonicNanoseconds() + Self.patience
        while monotonicNanoseconds() < end, !load.hasEnded {
            if let gap = load.monitor.nanosecondsSinceMark { return gap }
            usleep(100)
        }
        return nil
    }
}

extension ChaosReport {
    fileprivate mutating func note(lastWordsOf log: String) {
        let lines = log.split(separator: "\n").filter { $0.contains("[error]") || $0.contains("[warning]") }
        for line in lines.suffix(8) { note(String(line)) }
    }
}

/// A verifying load for a thread of its own.
private final class RunningLoad: Sendable {
    let monitor = LoadMonitor()
    private let load: VerifiedLoad
    private let result = Mutex<Result<LoadReport, LoadError>?>(nil)

    init(_ load: VerifiedLoad) { self.load = load }

    func run() {
        do throws(LoadError) {
            let report = try load.run(monitor: monitor)
            result.withLock { $0 = .success(report) }
        } catch {
            result.withLock { $0 = .failure(error) }
        }
    }

    var hasEnded: Bool { result.withLock { $0 != nil } }

    /// Adds what it has found; to be called when its thread has ended.
    func add(to report: inout ChaosReport) {
        switch result.withLock({ $0 }) {
        case .success(let load): report.take(load)
        case .failure(let error): report.take(error)
        case nil: preconditionFailure("it has ended without a result")
        }
    }
}
