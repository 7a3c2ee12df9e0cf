internal import Glibc
internal import Platform

/// What the kernel tells of a worker's io_urings and mappings.
public enum WorkerLook {
    /// Operations that the kernel has, and completions that the worker has not taken, of all rings together.
    public static func operations(ofProcess pid: Int32) -> (running: Int, done: Int) {
        var running = 0
        var done = 0
        for name in directoryNames("/proc/\(pid)/fdinfo") {
            // Without SQEs and CQEs, which follow, 4 KiB are enough.
            guard let text = readSmallFile("/proc/\(pid)/fdinfo/\(name)"), text.contains("CachedSqHead:") else {
                continue
            }
            var values: [Substring: UInt32] = [:]
            for line in text.split(separator: "\n") {
                let words = line.split(whereSeparator: { $0 == ":" || $0.isWhitespace })
                if words.count == 2, let value = UInt32(words[1]) { values[words[0]] = values[words[0]] ?? value }
            }
            guard let submitted = values["CachedSqHead"], let posted = values["CachedCqTail"],
                let taken = values["CqHead"]
            else { continue }
            running += Int(Int32(bitPattern: submitted &- posted))
            done += Int(Int32(bitPattern: posted &- taken))
        }
        return (running, done)
    }

    /// Where a process has mapped the start of a memory file; nil where it has not.
    static func address(ofMemoryFile name: String, inProcess pid: Int32) -> UInt64? {
        for line in (readFile("/proc/\(pid)/maps", limit: 1 << 20) ?? "").split(separator: "\n")
        where line.contains("/memfd:\(name)") {
            let fields = line.split(separator: " ", maxSplits: 3)
            guard fields.count == 4, let start = UInt64(fields[0].prefix { $0 != "-" }, radix: 16),
                let offset = UInt64(fields[2], radix: 16)
            else { continue }
            return start &- offset
        }
        return nil
    }
}
