// Texts that mean something to the worker of a share alone. It has the last word; what it would refuse is found here
// before there is a worker.

extension ValueForm {
    static func tag(_ text: String) throws(Complaint) -> ReadValue {
        guard (1...36).contains(text.utf8.count) else {
            throw Complaint(
                reason: text.isEmpty ? "the tag is empty" : "the tag has \(text.utf8.count) bytes",
                suggestion: "allowed: 1 to 36 bytes")
        }
        guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) else {
            throw Complaint(reason: "the tag has control characters", suggestion: "leave them out")
        }
        return ReadValue(text: text)
    }

    // MARK: Identifiers

    /// `GUEST:HOST:COUNT`, several with commas between them or in a list.
    static func identifiers(_ value: ConfigurationValue) throws(Complaint) -> ReadValue {
        var parts: [String] = []
        switch value {
        case .text(let text): parts = text.split(separator: ",").map(String.init)
        case .list(let elements):
            for element in elements {
                guard case .text(let text) = element else { throw notIdentifiers(element.kind) }
                parts.append(text)
            }
        default: throw notIdentifiers(value.kind)
        }
        guard !parts.isEmpty else { throw notIdentifiers("nothing") }
        guard parts.count <= 340 else { throw notIdentifiers("a list of \(parts.count) ranges") }
        var ranges: [(guest: UInt64, host: UInt64, count: UInt64)] = []
        for part in parts {
            let fields = part.split(separator: ":").map { UInt32($0).map(UInt64.init) }
            guard fields.count == 3, let guest = fields[0], let host = fields[1], let count = fields[2] else {
                throw notIdentifiers("\"\(part)\"")
            }
            guard count > 0, max(guest, host) + count <= UInt64(UInt32.max) else {
                throw Complaint(
                    reason: "the range \(part) is empty, or reaches behind 4294967294",
                    suggestion: "allowed: at least 1, as far as there are users")
            }
            func overlaps(_ a: UInt64, _ countA: UInt64, _ b: UInt64, _ countB: UInt64) -> Bool {
                a < b + countB && b < a + countA
            }
            let other = ranges.first {
                overlaps(guest, count, $0.guest, $0.count) || overlaps(host, count, $0.host, $0.count)
            }
            if let other {
                throw Complaint(
                    reason: "the range \(part) overlaps \(other.guest):\(other.host):\(other.count)",
                    suggestion: "each number is one user of either side")
            }
            ranges.append((guest, host, count))
        }
        return ReadValue(text: parts.joined(separator: ","))
    }

    private static func notIdentifiers(_ what: String) -> Complaint {
        Complaint(
            reason: "this takes ranges of numbers, not \(what)",
            suggestion: "write GUEST:HOST:COUNT, such as \"0:100000:65536\"; at most 340 of them")
    }

    // MARK: Attribute rules

    /// `:TYPE:SCOPE:KEY:PREPEND:`, several, or `:map:KEY:PREPEND:` as the last one. What a rule begins with separates
    /// its fields.
    static func attributeRules(_ text: String) throws(Complaint) -> ReadValue {
        // In a file they may stand on lines of their own, on a command line not.
        let line = String(text.map { $0.isNewline ? " " : $0 })
        var rest = Substring(line).drop(while: \.isWhitespace)
        var count = 0
        guard !rest.isEmpty else { throw notRules("there is no rule") }
        while let separator = rest.first {
            rest.removeFirst()
            let type = try field(&rest, separator)
            guard ["prefix", "ok", "bad", "unsupported", "map"].contains(type) else {
                throw notRules("\"\(type)\" is no type: prefix, ok, bad, unsupported or map")
            }
            if type != "map" {
                let scope = try field(&rest, separator)
                guard ["client", "server", "all"].contains(scope) else {
                    throw notRules("\"\(scope)\" is no scope: client, server or all")
                }
            }
            _ = try field(&rest, separator)
            let prepend = try field(&rest, separator)
            rest = rest.drop(while: \.isWhitespace)
            count += 1
            guard type == "map" else { continue }
            guard !prepend.isEmpty else { throw notRules("a map rule needs something to prepend") }
            guard rest.isEmpty else { throw notRules("a map rule is the last one") }
        }
        // A map rule is up to 4 of the worker's 128.
        guard count <= 124 else { throw notRules("there are \(count) rules, of at most 124") }
        return ReadValue(text: line)
    }

    private static func field(_ rest: inout Substring, _ separator: Character) throws(Complaint) -> String {
        guard let end = rest.firstIndex(of: separator) else {
            throw notRules("\"\(rest)\" does not end with \(separator)")
        }
        defer { rest = rest[rest.index(after: end)...] }
        guard rest[..<end].utf8.count <= 255 else { throw notRules("a name has more than 255 bytes") }
        return String(rest[..<end])
    }

    private static func notRules(_ why: String) -> Complaint {
        Complaint(
            reason: why,
            suggestion: "write :TYPE:SCOPE:KEY:PREPEND: or :map:KEY:PREPEND:, such as \":map::user.virtiofs.:\"")
    }
}
