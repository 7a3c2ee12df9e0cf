internal import ControlAPI
internal import FrontendKit
internal import Glibc
internal import KillKit
internal import Platform
internal import TestSupport

/// A moment at which a kill is aimed, by what it makes of requests: random kills hit some of them rarely.
public enum AimedPhase: String, Sendable, CaseIterable {
    /// The kernel has just taken operations.
    case adopted
    /// Requests have been returned from their completions, and neither is the guest shown that nor the kernel.
    case finishedFromCompletion = "finished_from_cqe"
    /// Operations are in the submission queue, and the kernel has not been shown them.
    case issuedAgain = "issued_again"
    /// The guest has been shown requests that the log still has.
    case foundPublished = "found_published"

    var aim: KillAim {
        switch self {
        case .adopted: .submitted
        case .finishedFromCompletion: .returned
        case .issuedAgain: .queued
        case .foundPublished: .published
        }
    }
}

extension ChaosTrial {
    private enum Disturbance {
        case kill, trap, upgrade
        case aimed(AimedPhase)
    }

    /// How long a device may take to come back, in nanoseconds: what has not come back by then hangs. Under a
    /// sanitizer, beside others, a worker takes many seconds to start.
    private static let patience: UInt64 = 120_000_000_000
    /// A worker that traps sooner is held not to be of use, and the next one waits. In nanoseconds.
    private static let usefulLife: UInt64 = 1_100_000_000

    /// The load alone, then with kills, then alone again.
    func observe(
        _ disk: inout SupervisedDevice, _ rig: borrowing Rig, _ load: RunningLoad, _ watch: StandstillWatch,
        _ report: inout ChaosReport
    ) throws {
        _ = try waitForActive(&disk, after: 0, withStandby: true)
        control(load, watch, &report)
        try disturb(&disk, rig, load, watch, &report)
        report.note(slowest: load.monitor.takeSlowest())
        _ = try waitForActive(&disk, after: 0, withStandby: true)
        control(load, watch, &report)
    }

    private func control(_ load: RunningLoad, _ watch: StandstillWatch, _ report: inout ChaosReport) {
        guard options.controlSeconds > 0 else { return }
        _ = load.monitor.takeSlowest()
        let (start, before) = (monotonicNanoseconds(), load.monitor.completedRequests)
        let end = start + UInt64(options.controlSeconds) * 1_000_000_000
        while monotonicNanoseconds() < end, !load.hasEnded {
            pause(milliseconds: 10)
            watch.step()
        }
        let count = load.monitor.completedRequests - before
        let rate = Int(Double(count) * 1e9 / Double(monotonicNanoseconds() - start))
        report.controls.append(ControlRun(requestsPerSecond: rate, slowest: load.monitor.takeSlowest()))
    }

    /// Kills and upgrades at random moments of the load.
    private func disturb(
        _ disk: inout SupervisedDevice, _ rig: borrowing Rig, _ load: RunningLoad, _ watch: StandstillWatch,
        _ report: inout ChaosReport
    ) throws {
        var random = SeededGenerator(seed: options.seed &+ 1)
        var plan = Array(repeating: Disturbance.kill, count: options.kills)
        plan += Array(repeating: .trap, count: options.traps)
        plan += Array(repeating: .upgrade, count: options.upgrades)
        for phase in AimedPhase.allCases { plan += Array(repeating: .aimed(phase), count: options.aimed) }
        plan.shuffle(using: &random)
        let programs =
            options.upgrades > 0 ? [try disk.copyWorker(as: "worker-a"), try disk.copyWorker(as: "worker-b")] : []
        var victim: Int32 = 0
        for disturbance in plan where !load.hasEnded {
            watch.step()
            if case .upgrade = disturbance {
                victim = try waitForActive(&disk, after: victim, withStandby: true)
                waitForMoment(load, &random)
                report.note(slowest: load.monitor.takeSlowest())
                _ = load.monitor.takeLongestPause()
                let failure = try disk.upgrade(to: programs[report.upgrades % 2])
                report.standstills.append(load.monitor.takeLongestPause())
                // All that were under way, and some more.
                waitForCompletions(load, 2 * Self.depth)
                let slowest = load.monitor.takeSlowest()
                report.slowestOfUpgrades.append(slowest)
                report.note(slowest: slowest)
                // From the freeze until the successor takes requests, as both have noted it.
                if let gap = try disk.status(statistics: true).statistics?.lastGap, gap.cause == "hand-over" {
                    report.pauses.append(gap.nanoseconds)
                }
                report.upgrades += 1
                if let failure { report.fail("an upgrade failed: \(failure)") }
            } else {
                let isCold = random.next(below: 8) < options.coldKillsOfEight
                let isRandom = if case .kill = disturbance { true } else { false }
                victim = try waitForActive(&disk, after: victim, withStandby: !(isCold && isRandom))
                guard try kill(victim, disturbance, isCold && isRandom, rig, load, &random, &report) else {
                    if !load.hasEnded { report.fail("nothing was served for 30 s after the death of \(victim)") }
                    return
                }
            }
        }
    }

    /// - Returns: whether the device was served again.
    private func kill(
        _ victim: Int32, _ disturbance: Disturbance, _ isCold: Bool, _ rig: borrowing Rig, _ load: RunningLoad,
        _ random: inout SeededGenerator, _ report: inout ChaosReport
    ) throws -> Bool {
        switch disturbance {
        case .aimed(let phase):
            try strike(victim, phase, queue: Int(random.next(below: UInt64(options.queueCount))), rig, load, &report)
        case .trap:
            // As long as a worker needs to be of use.
            let end = monotonicNanoseconds() + Self.usefulLife
            while monotonicNanoseconds() < end, !load.hasEnded { pause(milliseconds: 10) }
            waitForMoment(load, &random)
            Glibc.kill(victim, SIGTRAP)
            load.monitor.setMark()
        case .kill, .upgrade:
            waitForMoment(load, &random)
            Glibc.kill(victim, SIGKILL)
            load.monitor.setMark()
        }
        let (marked, completed) = (monotonicNanoseconds(), load.monitor.completedRequests)
        guard let gap = waitForGap(load) else { return false }
        if case .trap = disturbance {
            report.traps += 1
            report.trapGaps.append(gap)
        } else {
            report.kills += 1
            if isCold { report.coldGaps.append(gap) } else { report.gaps.append(gap) }
        }
        if let control = report.controls.first {
            report.recoveries.append(waitForThroughput(control, load, since: marked, completed))
        }
        return true
    }

    /// Kills a worker at a chosen moment.
    private func strike(
        _ victim: Int32, _ phase: AimedPhase, queue: Int, _ rig: borrowing Rig, _ load: RunningLoad,
        _ report: inout ChaosReport
    ) throws {
        guard let inflight = try rig.frontend.mapInflight() else {
            throw SystemError(cannot: "find", "the inflight region", nil)
        }
        let death = AimedDeath(rig.endpoints[queue], queue: queue, inflight: inflight)
        let isHit = try death.strike(phase.aim, process: victim, loops: options.threadCount) { load.monitor.setMark() }
        let before = report.aimed[phase] ?? (shots: 0, hits: 0)
        report.aimed[phase] = (before.shots + 1, before.hits + (isHit ? 1 : 0))
    }

    private func waitForActive(
        _ disk: inout SupervisedDevice, after victim: Int32, withStandby: Bool
    ) throws -> Int32 {
        try disk.waitForActive(after: victim, withStandby: withStandby, patience: Self.patience)
    }

    /// A moment that nobody chose: some completions later, then some microseconds after requests were made available.
    /// Without these, most kills of fast storage's worker would find nothing in flight.
    private func waitForMoment(_ load: RunningLoad, _ random: inout SeededGenerator) {
        waitForCompletions(load, Int(random.next(below: options.latencyMilliseconds > 0 ? 32 : 1000)))
        let published = load.monitor.publishedRequests
        while load.monitor.publishedRequests == published, !load.hasEnded { spinHint() }
        let end = monotonicNanoseconds() + random.next(below: 300) * 1000
        while monotonicNanoseconds() < end { spinHint() }
    }

    private func waitForCompletions(_ load: RunningLoad, _ count: Int) {
        let due = load.monitor.completedRequests + count
        while load.monitor.completedRequests < due, !load.hasEnded { usleep(50) }
    }

    private func waitForGap(_ load: RunningLoad) -> UInt64? {
        let end = monotonicNanoseconds() + Self.patience
        while monotonicNanoseconds() < end, !load.hasEnded {
            if let gap = load.monitor.nanosecondsSinceMark { return gap }
            usleep(100)
        }
        return nil
    }

    /// Waits until nine tenths of the requests complete in some milliseconds that do without kills; a second at most.
    ///
    /// - Returns: how long after `marked` that was, in nanoseconds.
    private func waitForThroughput(
        _ control: ControlRun, _ load: RunningLoad, since marked: UInt64, _ completed: Int
    ) -> UInt64 {
        let window: UInt64 = 5_000_000
        var (start, before) = (marked, completed)
        while start - marked < 1_000_000_000, !load.hasEnded {
            while monotonicNanoseconds() - start < window { usleep(100) }
            let (now, count) = (monotonicNanoseconds(), load.monitor.completedRequests)
            let due = Double(control.requestsPerSecond) * Double(now - start) / 1e9 * 0.9
            if Double(count - before) >= due { return start - marked }
            (start, before) = (now, count)
        }
        return start - marked
    }
}
