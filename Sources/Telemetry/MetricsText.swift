/// Writes metrics in Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
public struct MetricsText {
    /// What was written so far.
    public private(set) var text = ""
    private var family = ""

    /// The media type of the format.
    public static let mediaType = "text/plain; version=0.0.4; charset=utf-8"

    public enum Kind: String, Sendable { case counter, gauge, histogram }

    public init() {}

    /// Begins a metric: its samples follow.
    ///
    /// - Parameters:
    ///   - name: letters, digits and underscores.
    ///   - help: one sentence.
    public mutating func begin(_ name: String, _ kind: Kind, _ help: String) {
        family = name
        text += "# HELP \(name) \(Self.escape(help, quotes: false))\n# TYPE \(name) \(kind.rawValue)\n"
    }

    /// One sample of the metric begun last.
    ///
    /// - Parameters:
    ///   - suffix: behind the metric's name: those of a histogram have one.
    ///   - labels: in this order.
    ///   - value: a number as `seconds` or `description` spell it.
    public mutating func sample(_ suffix: String = "", _ labels: [(String, String)], _ value: String) {
        text += family + suffix
        if !labels.isEmpty {
            let pairs = labels.map { name, value in "\(name)=\"\(Self.escape(value, quotes: true))\"" }
            text += "{\(pairs.joined(separator: ","))}"
        }
        text += " \(value)\n"
    }

    public mutating func sample(_ labels: [(String, String)], _ value: UInt64) { sample("", labels, "\(value)") }

    /// A histogram of durations. Its bounds are powers of two of nanoseconds, which are borders of the buckets that
    /// they are counted in: so nothing is interpolated.
    ///
    /// - Parameter sum: of all durations, in nanoseconds.
    public mutating func histogram(_ labels: [(String, String)], _ latencies: LatencyBuckets, sum: UInt64) {
        for exponent in Self.exponents {
            let bound = ("le", Self.seconds(1 << UInt64(exponent)))
            sample("_bucket", labels + [bound], "\(latencies.total(belowPowerOfTwo: exponent))")
        }
        let total = latencies.counts.reduce(0, &+)
        sample("_bucket", labels + [("le", "+Inf")], "\(total)")
        sample("_sum", labels, Self.seconds(sum))
        sample("_count", labels, "\(total)")
    }

    /// Bounds of histograms: 8.192 us, twice as much each, up to 17.2 s.
    static let exponents = 13...34

    /// Nanoseconds as seconds, exactly.
    public static func seconds(_ nanoseconds: UInt64) -> String {
        let (whole, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        if rest == 0 { return "\(whole)" }
        var digits = "\(1_000_000_000 + rest)".dropFirst()
        while digits.last == "0" { digits.removeLast() }
        return "\(whole).\(digits)"
    }

    private static func escape(_ text: String, quotes: Bool) -> String {
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }
}
