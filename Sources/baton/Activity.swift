internal import ControlAPI
internal import Foundation

// What a device has done, and what is wrong with it, in words.

extension DeviceInfo {
    /// What the device has done since it was made, over all its workers; empty when that was not asked for.
    var activity: String {
        guard let statistics else { return "" }
        var lines = ["  since the device was made:"]
        for (name, kind) in statistics.named where kind.operations > 0 { lines.append("    \(name): \(kind.summary)") }
        if lines.count == 1 { lines[0] = "  nothing has been read or written since the device was made" }
        var flight = "  in flight: \(statistics.inFlight)"
        if let oldest = statistics.oldest { flight += ", the oldest for \(duration(oldest))" }
        lines.append(flight)
        if let nodes = statistics.files?.nodes, let open = statistics.files?.openFiles {
            lines.append("  known to its driver: \(nodes) files; open: \(open)")
        }
        if statistics.throttled > 0 {
            lines.append("  waited for its limit: \(duration(statistics.throttled)), added up over the queues")
        }
        if let gap = statistics.lastGap {
            let since = gap.cause == "death" ? "a worker died; since the next one learnt of it" : "handed over"
            lines.append("  last gap: \(duration(gap.nanoseconds)) without a worker (\(since))")
        }
        if let cpu = statistics.workerCPU { lines.append("  CPU of this worker: \(duration(cpu))") }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Sentences that say what is wrong, and what to do; empty when nothing is.
    var advice: String {
        var sentences: [String] = []
        if workers.allSatisfy({ $0.phase != "standby" }), state == "serving" || state == "waiting" {
            sentences.append("No worker stands by yet: a death now would take longer than usual.")
        }
        if givenUp > 0 {
            sentences.append(
                "\(givenUp) requests were answered with an error because workers died over them. "
                    + "See `baton events`, and report it with the log.")
        }
        if let held = statistics?.held, held > 0 {
            sentences.append(
                "\(held) requests wait because the host has no room for \(disk.file ?? "the image"): free some"
                    + " where it "
                    + "lies, and they go on by themselves (at once: baton resume \(disk.name)). To have them fail "
                    + "instead: baton set \(disk.name) --on-enospc=report.")
        }
        sentences += statistics?.advice ?? []
        return sentences.map { "  note: \($0)\n" }.joined()
    }
}

extension StatisticsInfo {
    /// Kinds of requests by the names that fit the device.
    var named: [(String, OperationInfo)] {
        guard let files else {
            return [
                ("reads", reads), ("writes", writes), ("flushes", flushes), ("discards", discards),
                ("write-zeroes", writeZeroes),
            ]
        }
        return [
            ("reads", reads), ("writes", writes), ("syncs", flushes), ("lookups", files.lookups),
            ("changes of names", files.changes), ("opens and closes", files.opens),
            ("attributes, locks and space", files.attributes), ("others", files.others),
        ]
    }

    /// How long a request may be in flight before it is worth a sentence, in nanoseconds.
    private static let patience: UInt64 = 5_000_000_000

    fileprivate var advice: [String] {
        var sentences: [String] = []
        if let oldest, oldest > Self.patience, held == 0 {
            sentences.append(
                "A request has been in flight for \(duration(oldest)). If the worker lives, the storage is stuck: "
                    + "look at the host's disks (iostat, dmesg)."
                    + (files == nil ? "" : " One that waits for another program's lock is no fault."))
        }
        if storage.noSpace > 0 {
            sentences.append(
                "\(storage.noSpace) requests failed because the host had no room: free some where the image lies.")
        }
        if storage.unexpectedEnds > 0 {
            sentences.append(
                "\(storage.unexpectedEnds) requests reached behind the image's end: it is shorter than the disk. "
                    + "Make it as long as it was (truncate -s).")
        }
        if storage.errors > 0 {
            sentences.append(
                "\(storage.errors) operations failed in the storage: look at the host's kernel log (dmesg).")
        }
        if malformed > 0 {
            sentences.append("\(malformed) requests made no sense: the guest's driver is at fault.")
        }
        return sentences
    }
}

extension OperationInfo {
    fileprivate var summary: String {
        var text = "\(operations)"
        if bytes > 0 { text += ", \(byteCount(bytes))" }
        if let p50 = latency?.p50, let p99 = latency?.p99 { text += ", p50 \(duration(p50)), p99 \(duration(p99))" }
        if errors > 0 { text += ", \(errors) failed" }
        return text
    }
}

/// A duration with two or three digits and its unit.
func duration(_ nanoseconds: UInt64) -> String {
    let units: [(Double, String)] = [(1e9, "s"), (1e6, "ms"), (1e3, "us")]
    for (size, name) in units where Double(nanoseconds) >= size {
        return "\(digits(Double(nanoseconds) / size)) \(name)"
    }
    return "\(nanoseconds) ns"
}

/// A number of bytes with two or three digits and its unit.
func byteCount(_ bytes: UInt64) -> String { byteCount(Double(bytes)) }

func byteCount(_ bytes: Double) -> String {
    let units: [(Double, String)] = [
        (0x1p50, "PiB"), (0x1p40, "TiB"), (0x1p30, "GiB"), (0x1p20, "MiB"), (0x1p10, "KiB"),
    ]
    for (size, name) in units where bytes >= size { return "\(digits(bytes / size)) \(name)" }
    return "\(UInt64(bytes)) B"
}

/// Below 10 with a decimal place.
func digits(_ value: Double) -> String { String(format: value < 9.95 ? "%.1f" : "%.0f", value) }
