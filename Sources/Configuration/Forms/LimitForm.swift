internal import ControlAPI

/// The table of rate limits: `limit = { iops = 2000, bandwidth = "100M" }`.
enum LimitForm {
    private static let forms: [(name: String, form: ValueForm)] = [
        ("iops", .integer(1...10_000_000)), ("iops-burst", .integer(1...10_000_000)),
        ("bandwidth", .bytes(4096...1 << 40)), ("bandwidth-burst", .bytes(4096...1 << 40)),
    ]

    /// For people.
    static var description: String {
        "{ " + forms.map { "\($0.name) = \($0.form.description)" }.joined(separator: "; ") + " }, each optional"
    }

    static func read(_ value: ConfigurationValue) throws(ValueForm.Complaint) -> [String: Int] {
        guard case .table(let table) = value else {
            throw ValueForm.Complaint(
                reason: "this takes a table, not \(value.kind)",
                suggestion: "write it as { iops = 2000, bandwidth = \"100M\" }")
        }
        var entries: [String: Int] = [:]
        for name in table.keys.sorted() {
            guard let form = forms.first(where: { $0.name == name })?.form, let value = table[name] else {
                let names = forms.map(\.name)
                throw ValueForm.Complaint(
                    reason: "there is no such limit",
                    suggestion: Spelling.nearest(to: name, among: names).map { "did you mean `\($0)`?" }
                        ?? "there are \(names.joined(separator: ", "))",
                    place: name)
            }
            do throws(ValueForm.Complaint) {
                entries[name] = try form.read(value).integer
            } catch {
                throw ValueForm.Complaint(reason: error.reason, suggestion: error.suggestion, place: name)
            }
        }
        for limit in ["iops", "bandwidth"] where entries["\(limit)-burst"] != nil && entries[limit] == nil {
            throw ValueForm.Complaint(
                reason: "there is no limit that could be exceeded for a while",
                suggestion: "add \(limit), or leave \(limit)-burst out", place: "\(limit)-burst")
        }
        return entries
    }

    /// nil: no limit.
    static func entries(of limit: LimitInfo?) -> [String: Int]? {
        guard let limit, limit != LimitInfo() else { return nil }
        let values = [limit.iops, limit.iopsBurst, limit.bandwidth, limit.bandwidthBurst]
        var entries: [String: Int] = [:]
        for (form, value) in zip(forms, values) { entries[form.name] = value.map { Int(clamping: $0) } }
        return entries
    }

    /// nil: no limit.
    static func info(_ entries: [String: Int]) -> LimitInfo? {
        if entries.isEmpty { return nil }
        func value(_ name: String) -> UInt64? { entries[name].map { UInt64($0) } }
        return LimitInfo(
            iops: value("iops"), iopsBurst: value("iops-burst"), bandwidth: value("bandwidth"),
            bandwidthBurst: value("bandwidth-burst"))
    }

    /// For people.
    static func text(_ entries: [String: Int]) -> String {
        let parts = forms.compactMap { form in entries[form.name].map { "\(form.name) = \($0)" } }
        return "{ \(parts.joined(separator: ", ")) }"
    }
}
