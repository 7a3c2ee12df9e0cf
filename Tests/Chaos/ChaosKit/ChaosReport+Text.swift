// A report for people and for programs.

extension ChaosReport: CustomStringConvertible {
    public var description: String {
        func line(_ figures: [(name: String, count: Int)]) -> String {
            figures.map { "\($0.count) \($0.name.replacing("_", with: " "))" }.joined(separator: ", ")
        }
        var lines = [
            "\(requests) requests, \(kills) kills, \(traps) traps, \(upgrades) upgrades",
            "  kills and upgrades by phase: \(line(takeOversByPhase))", "  requests: \(line(recoveredRequests))",
        ]
        for (name, phase) in aimedPhases {
            lines.append(
                "  aimed at \(name.replacing("_", with: " ")): \(phase.shots) kills, \(phase.hits) met the moment")
        }
        for (name, spread) in spreads where spread.count > 0 || name == "gap_ms" || name == "pause_ms" {
            lines.append("  \(name.dropLast(3).replacing("_", with: " ")) (ms): \(spread)")
        }
        lines.append("  slowest request: \(milliseconds(slowest)) ms")
        for (name, control) in namedControls {
            let slowest = "slowest request \(milliseconds(control.slowest)) ms"
            lines.append("  without kills, \(name): \(control.requestsPerSecond) requests/s, \(slowest)")
        }
        lines.append("  \(line(faults))")
        return (lines + findings.map { "  \($0)" }).joined(separator: "\n")
    }

    /// One object on one line.
    public var json: String {
        var pairs = [
            ("requests", "\(requests)"), ("kills", "\(kills)"), ("traps", "\(traps)"), ("upgrades", "\(upgrades)"),
            ("kills_by_phase", object(takeOversByPhase)), ("recovered", object(recoveredRequests)),
        ]
        pairs.append(
            ("aimed", object(aimedPhases.map { ($0, object([("kills", $1.shots), ("met", $1.hits)])) })))
        pairs += faults.map { ($0.name, "\($0.count)") }
        pairs += spreads.map { name, spread in (name, object([("count", "\(spread.count)")] + spread.figures)) }
        pairs.append(("slowest_ms", milliseconds(slowest)))
        let controls = namedControls.map { name, control in
            let figures = [
                ("requests_per_second", "\(control.requestsPerSecond)"), ("slowest_ms", milliseconds(control.slowest)),
            ]
            return (name, object(figures))
        }
        pairs.append(("control", object(controls)))
        return object(pairs) + "\n"
    }

    private var spreads: [(String, Spread)] {
        [
            ("gap_ms", Spread(gaps)), ("cold_gap_ms", Spread(coldGaps)), ("trap_gap_ms", Spread(trapGaps)),
            ("pause_ms", Spread(pauses)), ("upgrade_standstill_ms", Spread(standstills)),
            ("upgrade_slowest_ms", Spread(slowestOfUpgrades)),
            ("recovery_90_ms", Spread(recoveries)),
        ]
    }

    private var aimedPhases: [(String, (shots: Int, hits: Int))] {
        AimedPhase.allCases.compactMap { phase in aimed[phase].map { (phase.rawValue, $0) } }
    }

    private var namedControls: [(String, ControlRun)] { Array(zip(["before", "after"], controls)) }

    private func object(_ pairs: [(String, String)]) -> String {
        "{" + pairs.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + "}"
    }

    private func object(_ figures: [(name: String, count: Int)]) -> String {
        object(figures.map { ($0.name, "\($0.count)") })
    }
}

/// The load without kills.
public struct ControlRun: Sendable {
    public var requestsPerSecond: Int
    /// In nanoseconds.
    public var slowest: UInt64
}

/// Durations, by rank.
struct Spread: CustomStringConvertible {
    private let sorted: [UInt64]

    init(_ nanoseconds: [UInt64]) { sorted = nanoseconds.sorted() }

    var count: Int { sorted.count }

    /// In milliseconds, to the microsecond.
    var figures: [(String, String)] { [("p50", rank(0.5)), ("p99", rank(0.99)), ("max", rank(1))] }

    var description: String {
        count == 0 ? "none" : figures.map { "\($0.0) \($0.1)" }.joined(separator: ", ") + " of \(count)"
    }

    private func rank(_ fraction: Double) -> String {
        guard !sorted.isEmpty else { return "0" }
        return milliseconds(sorted[max(0, Int((Double(sorted.count) * fraction).rounded(.up)) - 1)])
    }
}

private func milliseconds(_ nanoseconds: UInt64) -> String {
    let microseconds = nanoseconds / 1000
    let rest = "\(microseconds % 1000)"
    return "\(microseconds / 1000)." + String(repeating: "0", count: 3 - rest.count) + rest
}
