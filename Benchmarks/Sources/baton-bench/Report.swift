internal import Glibc
internal import Platform

/// A line of the result: the medians of one subject's runs at one point.
struct Row {
    /// More than this between the best and the worst run, and the machine is too noisy to tell subjects apart.
    static let spreadLimit = 0.15
    /// Others had the measuring CPU for more than this part of the time: the same.
    static let contentionLimit = 0.05

    var point: Point
    var subject: String
    var iops: Double
    var cpuMicrosecondsPerRequest: Double?
    var p50Microseconds: Double
    var p99Microseconds: Double
    /// (best - worst) / median of the runs' IOPS.
    var spread: Double
    var contention: Double

    init(_ point: Point, _ subject: String, _ samples: [Sample]) {
        self.point = point
        self.subject = subject
        iops = median(samples.map(\.iops))
        let cpu = samples.compactMap(\.cpuMicrosecondsPerRequest)
        cpuMicrosecondsPerRequest = cpu.isEmpty ? nil : median(cpu)
        p50Microseconds = median(samples.map(\.p50Microseconds))
        p99Microseconds = median(samples.map(\.p99Microseconds))
        let all = samples.map(\.iops).sorted()
        spread = iops > 0 ? (all[all.count - 1] - all[0]) / iops : 0
        contention = median(samples.map(\.contention))
    }

    var isTooNoisy: Bool { spread > Self.spreadLimit || contention > Self.contentionLimit }

    static let heading =
        cell("case", 11, left: true) + cell("subject", 21, left: true) + cell("depth", 6) + cell("queues", 7)
        + cell("IOPS", 12) + cell("CPU us/req", 12) + cell("p50 us", 10) + cell("p99 us", 10) + cell("spread", 8)

    var text: String {
        cell(point.name, 11, left: true) + cell(subject, 21, left: true) + cell("\(point.depth)", 6)
            + cell("\(point.queueCount)", 7) + cell("\(Int(iops))", 12)
            + cell(cpuMicrosecondsPerRequest.map { decimal($0, 3) } ?? "-", 12) + cell(decimal(p50Microseconds, 1), 10)
            + cell(decimal(p99Microseconds, 1), 10) + cell("\(Int((spread * 100).rounded())) %", 8)
            + (isTooNoisy ? "  noisy" : "")
    }

    var json: String {
        let cpu = cpuMicrosecondsPerRequest.map { decimal($0, 4) } ?? "null"
        return "{\"case\": \(quoted(point.name)), \"subject\": \(quoted(subject)), \"depth\": \(point.depth), "
            + "\"queues\": \(point.queueCount), \"iops\": \(decimal(iops, 0)), \"cpu_us_per_request\": \(cpu), "
            + "\"p50_us\": \(decimal(p50Microseconds, 2)), \"p99_us\": \(decimal(p99Microseconds, 2)), "
            + "\"spread\": \(decimal(spread, 4)), \"noisy\": \(isTooNoisy)}"
    }
}

/// Writes all rows as JSON.
func writeJSON(_ rows: [Row], to path: String) throws {
    let text = "{\"rows\": [\n  " + rows.map(\.json).joined(separator: ",\n  ") + "\n]}\n"
    let file = try openFile(path, O_WRONLY | O_CREAT | O_TRUNC)
    let bytes = Array(text.utf8)
    let written = unsafe bytes.withUnsafeBytes { unsafe write(file.number, $0.baseAddress, $0.count) }
    guard written == bytes.count else { throw SystemError(cannot: "write", path, .current) }
}

/// The value in the middle; of an even number, the mean of the two in the middle.
func median(_ values: [Double]) -> Double {
    precondition(!values.isEmpty, "no values, no median")
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/// A number with so many digits behind the point.
func decimal(_ value: Double, _ digits: Int) -> String {
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let scaled = UInt64((max(0, value) * scale).rounded())
    guard digits > 0 else { return "\(scaled)" }
    let fraction = String(scaled % UInt64(scale))
    return "\(scaled / UInt64(scale))." + String(repeating: "0", count: digits - fraction.count) + fraction
}

private func cell(_ text: String, _ width: Int, left: Bool = false) -> String {
    let padding = String(repeating: " ", count: max(1, width - text.count))
    return left ? text + padding : padding + text
}

private func quoted(_ text: String) -> String {
    let escaped = text.unicodeScalars.map { scalar in
        switch scalar {
        case "\"", "\\": "\\\(scalar)"
        case _ where scalar.value < 0x20: "?"
        default: "\(scalar)"
        }
    }
    return "\"\(escaped.joined())\""
}
