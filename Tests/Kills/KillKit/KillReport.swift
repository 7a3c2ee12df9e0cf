internal import FrontendKit

/// What kills at one aim have hit.
public struct KillRow: Sendable {
    public var kills = 0
    /// Of those: the moment did not come within its time, so that they hit a random one.
    public var missed = 0
    /// Kills that hit at least one request that the kernel had; of those that were looked at.
    public var running = 0
    /// ... that the kernel had done, unseen by the worker.
    public var done = 0
    /// ... that was in the log only.
    public var logged = 0
    /// ... in one of these three phases.
    public var taken = 0
    /// ... whose used element was not published.
    public var returned = 0
    /// ... that was published and not struck off.
    public var published = 0
    /// Kills that hit no request in flight.
    public var nothing = 0

    mutating func count(_ hit: KillHit, missed isMissed: Bool) {
        kills += 1
        missed += isMissed ? 1 : 0
        running += (hit.running ?? 0) > 0 ? 1 : 0
        done += (hit.done ?? 0) > 0 ? 1 : 0
        logged += (hit.logged ?? 0) > 0 ? 1 : 0
        taken += hit.taken > 0 ? 1 : 0
        returned += hit.returned > 0 ? 1 : 0
        published += hit.published > 0 ? 1 : 0
        nothing += hit.isAny ? 0 : 1
    }

    mutating func add(_ other: KillRow) {
        kills += other.kills
        missed += other.missed
        running += other.running
        done += other.done
        logged += other.logged
        taken += other.taken
        returned += other.returned
        published += other.published
        nothing += other.nothing
    }

    /// In the order of `headings`.
    var figures: [Int] { [kills, missed, taken, running, done, logged, returned, published, nothing] }

    static let headings = [
        "kills", "missed", "taken", "running", "done", "logged", "returned", "published", "nothing",
    ]
}

/// What a trial, or several, found out.
public struct KillReport: Sendable {
    public private(set) var rows: [KillRow] = KillAim.allCases.map { _ in KillRow() }
    public private(set) var requests = 0
    /// Requests that ended with an error, or never.
    public private(set) var errors = 0
    public private(set) var lost = 0
    /// Completions of a request that was not in flight: it was returned twice.
    public private(set) var repeated = 0
    public private(set) var stale = 0
    /// Sectors that held something else that they must not.
    public private(set) var mismatched = 0
    /// Interrupts that a successor owed and did not send.
    public internal(set) var missedInterrupts = 0
    /// One sentence each.
    public private(set) var findings: [String] = []

    public init() {}

    public subscript(aim: KillAim) -> KillRow {
        get { rows[KillAim.allCases.firstIndex(of: aim)!] }
        set { rows[KillAim.allCases.firstIndex(of: aim)!] = newValue }
    }

    /// All kills together.
    public var total: KillRow {
        var sum = KillRow()
        for row in rows { sum.add(row) }
        return sum
    }

    public var isClean: Bool { errors + lost + repeated + stale + mismatched + missedInterrupts == 0 }

    mutating func take(_ load: LoadReport) {
        requests += load.requests
        errors += load.errors
        lost += load.mismatches(.lost)
        stale += load.mismatches(.stale)
        mismatched += load.mismatches - load.mismatches(.lost) - load.mismatches(.stale)
        findings += load.findings
    }

    mutating func take(_ error: LoadError) {
        switch error {
        case .violation(.idNotInFlight, _), .violation(.usedIndexAhead, _): repeated += 1
        case .stalled(let outstanding, _): lost += outstanding
        default: errors += 1
        }
        findings.append("\(error)")
    }

    public mutating func add(_ other: KillReport) {
        for index in rows.indices { rows[index].add(other.rows[index]) }
        requests += other.requests
        errors += other.errors
        lost += other.lost
        repeated += other.repeated
        stale += other.stale
        mismatched += other.mismatched
        missedInterrupts += other.missedInterrupts
        findings += other.findings
    }

    /// The figures that must be 0, by name.
    public var faults: [(name: String, count: Int)] {
        [
            ("lost", lost), ("repeated", repeated), ("stale", stale), ("mismatched", mismatched), ("errors", errors),
            ("missed interrupts", missedInterrupts),
        ]
    }

    /// A table of what was hit, by aim, and the faults below it.
    public var table: String {
        var lines = [Self.line("killed at", KillRow.headings)]
        for (aim, row) in zip(KillAim.allCases, rows) where row.kills > 0 {
            lines.append(Self.line(aim.rawValue, row.figures.map(String.init)))
        }
        lines.append(Self.line("all", total.figures.map(String.init)))
        let faults = faults.map { "\($0.count) \($0.name)" }.joined(separator: ", ")
        lines.append("\(requests) requests: \(faults)")
        return (lines + findings).joined(separator: "\n")
    }

    public var json: String {
        func object(_ pairs: [(String, String)]) -> String {
            "{" + pairs.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + "}"
        }
        func object(_ row: KillRow) -> String { object(Array(zip(KillRow.headings, row.figures.map(String.init)))) }
        let aims = zip(KillAim.allCases, rows).filter { $0.1.kills > 0 }.map { ($0.0.rawValue, object($0.1)) }
        let faults = faults.map { ($0.name.replacing(" ", with: "_"), "\($0.count)") }
        return object(
            [("requests", "\(requests)"), ("aims", object(aims)), ("all", object(total))] + faults) + "\n"
    }

    private static func line(_ name: String, _ cells: [String]) -> String {
        func padded(_ text: String, _ width: Int) -> String {
            String(repeating: " ", count: max(0, width - text.count)) + text
        }
        return name + String(repeating: " ", count: max(1, 20 - name.count))
            + cells.map { padded($0, 10) }.joined()
    }
}
