/// What a verifying load does.
public enum LoadOperation: Int, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case read, write, flush, discard, writeZeroes

    var requestKind: BlockRequestKind {
        switch self {
        case .read: .read
        case .write: .write
        case .flush: .flush
        case .discard: .discard
        case .writeZeroes: .writeZeroes
        }
    }

    public var description: String { "\(requestKind)" }
}

/// What a verifying load found out.
public struct LoadReport: Sendable, CustomStringConvertible {
    /// What became of one kind of request.
    public struct Operation: Sendable {
        public var requests = 0
        /// Ended with another status than "ok".
        public var errors = 0
        /// From submission until the completion was seen.
        public var latency = LatencyHistogram()
    }

    /// How many findings are described in words.
    public static let findingLimit = 16

    public let seed: UInt64
    private var operations = LoadOperation.allCases.map { _ in Operation() }
    private var mismatchCounts = MismatchKind.allCases.map { _ in 0 }
    /// The first mismatches and other findings, one sentence each.
    public private(set) var findings: [String] = []
    /// Completions for which an interrupt was asked and did not come within a second.
    public var missedInterrupts = 0
    /// The longest time without any completion while requests were outstanding, in nanoseconds.
    public var longestPause: UInt64 = 0
    /// How long it all took, in nanoseconds.
    public var nanoseconds: UInt64 = 0

    init(seed: UInt64) {
        self.seed = seed
    }

    public subscript(operation: LoadOperation) -> Operation {
        get { operations[operation.rawValue] }
        _modify { yield &operations[operation.rawValue] }
    }

    /// How many sectors that were read held something that they must not.
    public func mismatches(_ kind: MismatchKind) -> Int { mismatchCounts[kind.rawValue] }

    /// How many sectors that were read held something that they must not, whatever it was.
    public var mismatches: Int { mismatchCounts.reduce(0, +) }

    /// Requests that completed.
    public var requests: Int { operations.reduce(0) { $0 + $1.requests } }

    /// Requests that ended with another status than "ok".
    public var errors: Int { operations.reduce(0) { $0 + $1.errors } }

    /// Nothing is wrong: no errors, no mismatches, no missed interrupts.
    public var isClean: Bool { errors == 0 && mismatches == 0 && missedInterrupts == 0 }

    mutating func count(_ kind: MismatchKind, _ finding: @autoclosure () -> String) {
        mismatchCounts[kind.rawValue] += 1
        if findings.count < Self.findingLimit { findings.append(finding()) }
    }

    /// Adds what another thread found.
    mutating func add(_ other: LoadReport) {
        for index in operations.indices {
            operations[index].requests += other.operations[index].requests
            operations[index].errors += other.operations[index].errors
            operations[index].latency.add(other.operations[index].latency)
        }
        for index in mismatchCounts.indices { mismatchCounts[index] += other.mismatchCounts[index] }
        findings += other.findings.prefix(Self.findingLimit - findings.count)
        missedInterrupts += other.missedInterrupts
        longestPause = max(longestPause, other.longestPause)
        nanoseconds = max(nanoseconds, other.nanoseconds)
    }

    public var description: String {
        let kinds = MismatchKind.allCases.filter { mismatches($0) > 0 }.map { "\($0) \(mismatches($0))" }
        var lines = [
            "seed \(seed): \(requests) requests in \(nanoseconds / 1_000_000) ms, \(errors) errors, "
                + "\(mismatches) mismatches" + (kinds.isEmpty ? "" : " (\(kinds.joined(separator: ", ")))")
                + ", \(missedInterrupts) missed interrupts, longest pause \(longestPause / 1_000_000) ms"
        ]
        for operation in LoadOperation.allCases where self[operation].requests > 0 {
            let (figures, latency) = (self[operation], self[operation].latency)
            lines.append(
                "  \(operation): \(figures.requests), \(figures.errors) errors, "
                    + "p50 \(latency.quantile(0.5) / 1000) us, p99 \(latency.quantile(0.99) / 1000) us, "
                    + "max \(latency.maximum / 1000) us")
        }
        return (lines + findings.map { "  \($0)" }).joined(separator: "\n")
    }
}
