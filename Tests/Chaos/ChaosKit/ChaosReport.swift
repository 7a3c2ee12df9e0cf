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

    var figures: [(name: String, count: Int)] {
        [
            ("adopted", adopted), ("finished_from_cqe", finished), ("issued_again", issuedAgain),
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
    /// The longest time without a completion while an upgrade was under way, in nanoseconds.
    public internal(set) var pauses: [UInt64] = []
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

    mutating func take(_ error: LoadError) {
        switch error {
        case .violation(.idNotInFlight, _), .violation(.usedIndexAhead, _): repeated += 1
        case .stalled(let outstanding, _): lost += outstanding
        default: errors += 1
        }
        findings.append("\(error)")
    }

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

// MARK: - For people and programs

extension ChaosReport: CustomStringConvertible {
    public var description: String {
        func line(_ figures: [(name: String, count: Int)]) -> String {
            figures.map { "\($0.count) \($0.name.replacing("_", with: " "))" }.joined(separator: ", ")
        }
        let lines = [
            "\(requests) requests, \(kills) kills, \(traps) traps, \(upgrades) upgrades",
            "  take-overs with requests: \(line(takeOversByPhase))", "  requests: \(line(recoveredRequests))",
            "  gap (ms), standby ready: \(Spread(gaps))", "  gap (ms), whatever was ready: \(Spread(coldGaps))",
            "  pause of an upgrade (ms): \(Spread(pauses))", "  \(line(faults))",
        ]
        return (lines + findings.map { "  \($0)" }).joined(separator: "\n")
    }

    /// One object on one line.
    public var json: String {
        func object(_ pairs: [(String, String)]) -> String {
            "{" + pairs.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + "}"
        }
        func object(_ figures: [(name: String, count: Int)]) -> String {
            object(figures.map { ($0.name, "\($0.count)") })
        }
        func object(_ spread: Spread) -> String {
            object([("count", "\(spread.count)")] + spread.figures)
        }
        var pairs = [
            ("requests", "\(requests)"), ("kills", "\(kills)"), ("traps", "\(traps)"), ("upgrades", "\(upgrades)"),
            ("kills_by_phase", object(takeOversByPhase)), ("recovered", object(recoveredRequests)), ("aimed", "[]"),
        ]
        pairs += faults.map { ($0.name, "\($0.count)") }
        pairs += [
            ("gap_ms", object(Spread(gaps))), ("cold_gap_ms", object(Spread(coldGaps))),
            ("pause_ms", object(Spread(pauses))),
        ]
        return object(pairs) + "\n"
    }
}

/// Durations, by rank.
struct Spread: CustomStringConvertible {
    private let sorted: [UInt64]

    init(_ nanoseconds: [UInt64]) { sorted = nanoseconds.sorted() }

    var count: Int { sorted.count }

    /// In milliseconds, to the microsecond.
    var figures: [(String, String)] {
        [("p50", milliseconds(0.5)), ("p99", milliseconds(0.99)), ("max", milliseconds(1))]
    }

    var description: String {
        count == 0 ? "none" : figures.map { "\($0.0) \($0.1)" }.joined(separator: ", ") + " of \(count)"
    }

    private func milliseconds(_ fraction: Double) -> String {
        guard !sorted.isEmpty else { return "0" }
        let rank = Int((Double(sorted.count) * fraction).rounded(.up))
        let microseconds = sorted[max(0, rank - 1)] / 1000
        let rest = "\(microseconds % 1000)"
        return "\(microseconds / 1000)." + String(repeating: "0", count: 3 - rest.count) + rest
    }
}
