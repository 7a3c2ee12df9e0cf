/// What workers have printed about their take-overs.
enum WorkerWords {
    /// One for each take-over, in order. Only one worker has the device at a time, and it says last that it took it up.
    static func takeOvers(in log: String) -> [RecoveredRequests] {
        var all: [RecoveredRequests] = []
        var current = RecoveredRequests()
        // The supervisor repeats some of what they say.
        for line in log.split(separator: "\n") where line.hasPrefix("baton-worker") {
            if line.contains("a worker before left requests in flight") {
                current.inFlight += value(of: "requests", in: line)
                current.adopted += value(of: "adopted", in: line)
                current.published += value(of: "published", in: line)
            } else if line.contains("the kernel has finished requests of a worker before") {
                current.finished += value(of: "completions", in: line)
            } else if line.contains("took over from process") || line.contains("took up the device in") {
                all.append(current)
                current = RecoveredRequests()
            }
        }
        // The first worker took up a new device.
        return Array(all.dropFirst())
    }

    private static func value(of key: String, in line: Substring) -> Int {
        for word in line.split(separator: " ") where word.hasPrefix("\(key)=") {
            return Int(word.dropFirst(key.count + 1)) ?? 0
        }
        return 0
    }
}
