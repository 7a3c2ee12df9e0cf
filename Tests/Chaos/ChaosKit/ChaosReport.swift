internal import FrontendKit

/// What became of requests that were in flight when a worker's time ended.
public struct RecoveredRequests: Sendable, Equatable {
    /// Of the inflight log: taken and not returned.
    public var inFlight = 0
    /// Of those, the kernel had the operation, and it completed for the successor.
    public var adopted = 0
    /// Of those, the kernel was done with it, unseen: finished from its completion.
    public var finished = 0
    /// The successor carried it out, as nobody had or nobody can know.
    public var issuedAgain: Int { inFlight - adopted }
    /// Returned and shown to the guest, not struck off the log.
    public var published = 0

    public init() {}

    /// Each request once. A completion that was found may also be that of a request that had been returned, so that
    /// there may be more of them than of requests.
    var figures: [(name: String, count: Int)] {
        let fromCompletion = min(adopted, finished)
        return [
            ("adopted", adopted - fromCompletion), ("finished_from_cqe", fromCompletion), ("issued_again", issuedAgain),
            ("found_published", published),
        ]
    }
}

/// What a chaos run has done and found.
public struct ChaosReport: Sendable {
    public internal(set) var kills = 0
    public internal(set) var traps = 0
    public internal(set) var upgrades = 0
    public private(set) var requests = 0
    /// Take-overs, as the workers tell of them.
    public internal(set) var recovered: [RecoveredRequests] = []
    /// From a kill to the first completion of a request made available after it, in nanoseconds; a standby was ready.
    public internal(set) var gaps: [UInt64] = []
    /// The same, of kills that did not wait for a standby.
    public internal(set) var coldGaps: [UInt64] = []
    /// The same as `gaps`, of traps.
    public internal(set) var trapGaps: [UInt64] = []
    /// From a kill until as many requests completed in a time as without kills, less a tenth, in nanoseconds. Only with
    /// a control run.
    public internal(set) var recoveries: [UInt64] = []
    /// Kills that were aimed: at what, how many, and how many of them met that moment.
    public internal(set) var aimed: [AimedPhase: (shots: Int, hits: Int)] = [:]
    /// The same load without kills, before and after; empty when it was not run.
    public internal(set) var controls: [ControlRun] = []
    /// The slowest request while workers were killed, in nanoseconds.
    public internal(set) var slowest: UInt64 = 0
    /// The slowest request of each upgrade, in nanoseconds: from its beginning until all have completed that were under
    /// way when it ended.
    public internal(set) var slowestOfUpgrades: [UInt64] = []
    /// From the freeze of a worker until its successor takes requests, in nanoseconds.
    public internal(set) var pauses: [UInt64] = []
    /// The longest time without a completion while an upgrade was under way, in nanoseconds: the pause, and what the
    /// start of a process takes from the load on a machine of few CPUs.
    public internal(set) var standstills: [UInt64] = []
    public private(set) var lost = 0
    /// Completions of a request that was not in flight: it was returned twice.
    public private(set) var repeated = 0
    public private(set) var stale = 0
    /// Sectors that held something else that they must not.
    public private(set) var mismatched = 0
    /// Requests that failed, interrupts that were owed, disconnects, upgrades that were refused.
    public private(set) var errors = 0
    /// One sentence each.
    public private(set) var findings: [String] = []

    mutating func take(_ load: LoadReport) {
        requests += load.requests
        errors += load.errors + load.missedInterrupts
        lost += load.mismatches(.lost)
        stale += load.mismatches(.stale)
        mismatched += load.mismatches - load.mismatches(.lost) - load.mismatches(.stale)
        findings += load.findings
        if load.missedInterrupts > 0 { findings.append("\(load.missedInterrupts) interrupts did not come") }
    }

    mutating func take(_ load: FileLoadReport) {
        requests += load.total
        mismatched += load.mismatches
        errors += load.missedInterrupts
        findings += load.findings
        if load.missedInterrupts > 0 { findings.append("\(load.missedInterrupts) interrupts did not come") }
    }

    mutating func take(_ error: LoadError) {
        switch error {
        case .violation(.idNotInFlight, _), .violation(.usedIndexAhead, _): repeated += 1
        case .stalled(let outstanding, _): lost += outstanding
        default: errors += 1
        }
        findings.append("\(error)")
    }

    mutating func note(slowest nanoseconds: UInt64) { slowest = max(slowest, nanoseconds) }

    mutating func fail(_ sentence: String) {
        errors += 1
        findings.append(sentence)
    }

    mutating func note(_ sentence: String) { findings.append(sentence) }

    /// What must be 0, by name.
    public var faults: [(name: String, count: Int)] {
        [("lost", lost), ("repeated", repeated), ("stale", stale), ("mismatched", mismatched), ("errors", errors)]
    }

    public var isClean: Bool { faults.allSatisfy { $0.count == 0 } }

    /// All recovered requests, by kind.
    public var recoveredRequests: [(name: String, count: Int)] {
        var sum = RecoveredRequests().figures
        for each in recovered {
            for (index, figure) in each.figures.enumerated() { sum[index].count += figure.count }
        }
        return sum
    }

    /// Take-overs with at least one request of a kind; and those with none of any.
    public var takeOversByPhase: [(name: String, count: Int)] {
        var sum = RecoveredRequests().figures
        var nothing = 0
        for each in recovered {
            for (index, figure) in each.figures.enumerated() where figure.count > 0 { sum[index].count += 1 }
            if each.figures.allSatisfy({ $0.count == 0 }) { nothing += 1 }
        }
        return sum + [("nothing", nothing)]
    }
}
