extension ReloadResult {
    /// In one line, for people.
    public var summary: String {
        guard errors.isEmpty else {
            return "the configuration has \(errors.count) errors: nothing was changed"
        }
        var parts = [
            "\(added.count) added", "\(removed.count) removed", "\(changed.count) keys changed",
            "\(unchanged.count) devices as they were",
        ]
        if !held.isEmpty { parts.append("\(held.count) keys wait for a new device") }
        if !failures.isEmpty { parts.append("\(failures.count) failed") }
        return (dryRun ? "would be done: " : "configuration: ") + parts.joined(separator: ", ")
    }

    /// For people, a line for each thing.
    public var lines: [String] {
        errors.map { "error: \($0)" } + warnings.map { "note: \($0)" } + removed.map { "\($0): removed" }
            + added.map { "\($0): added" }
            + changed.map { "\($0.device): \($0.key) was \($0.running) and is \($0.asked)" }
            + held.map { "\($0.device): \($0.explanation ?? "")" } + failures.map { "failed: \($0)" }
    }
}
