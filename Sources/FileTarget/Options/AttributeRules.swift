public import Platform

/// How names of extended attributes are changed on their way between driver and host: the rules of virtiofsd's
/// `-o xattrmap`.
///
/// A rule is `:TYPE:SCOPE:KEY:PREPEND:`, or `:map:KEY:PREPEND:` as the last one; whatever stands first is the
/// separator. The first rule that fits a name decides. A name that no rule fits is refused, or hidden.
public struct AttributeRules: Sendable, Equatable {
    public enum Kind: String, Sendable {
        /// The host's name is PREPEND and the driver's name.
        case prefix
        /// The name stays as it is.
        case ok
        /// Refused with EPERM; hidden from lists.
        case bad
        /// Refused with EOPNOTSUPP; hidden from lists.
        case unsupported
    }

    public struct Rule: Sendable, Equatable {
        public var kind: Kind
        /// Applies to names that the driver uses, by KEY.
        public var isClients: Bool
        /// Applies to names that the host lists, by PREPEND.
        public var isServers: Bool
        public var key: [UInt8]
        public var prepend: [UInt8]
    }

    public private(set) var rules: [Rule] = []

    /// More are refused: each name is compared with each.
    public static let maximumRules = 128
    /// XATTR_NAME_MAX: no name is longer, nor is a part of one.
    static let maximumName = 255

    /// - Throws: a sentence that says what is wrong with the text.
    public init(parsing text: String) throws(SystemError) {
        var rest = Substring(text)
        while let first = rest.first {
            if first.isWhitespace {
                rest.removeFirst()
                continue
            }
            let isLast = try parseRule(&rest, separator: first)
            guard rules.count <= Self.maximumRules else { throw Self.wrong("there are too many rules") }
            if isLast, rest.contains(where: { !$0.isWhitespace }) {
                throw Self.wrong("a map rule must be the last one")
            }
        }
        if rules.isEmpty { throw Self.wrong("there is no rule") }
    }

    private static func wrong(_ why: String) -> SystemError {
        SystemError(
            cannot: "use", "the rules for extended attributes", nil,
            advice:
                "\(why): give rules as :TYPE:SCOPE:KEY:PREPEND: or :map:KEY:PREPEND:, for example :map::user.virtiofs.:"
        )
    }

    private static func field(_ rest: inout Substring, _ separator: Character) throws(SystemError) -> String {
        guard let end = rest.firstIndex(of: separator) else {
            throw wrong("'\(rest)' does not end with '\(separator)'")
        }
        defer { rest = rest[rest.index(after: end)...] }
        let field = String(rest[..<end])
        guard field.utf8.count <= maximumName else { throw wrong("'\(field)' is too long") }
        return field
    }

    private mutating func parseRule(_ rest: inout Substring, separator: Character) throws(SystemError) -> Bool {
        rest.removeFirst()
        let type = try Self.field(&rest, separator)
        if type == "map" {
            let key = Array(try Self.field(&rest, separator).utf8)
            let prepend = Array(try Self.field(&rest, separator).utf8)
            guard !prepend.isEmpty else { throw Self.wrong("a map rule needs something to prepend") }
            rules.append(Rule(kind: .prefix, isClients: true, isServers: true, key: key, prepend: prepend))
            if key.isEmpty {
                rules.append(Rule(kind: .bad, isClients: true, isServers: true, key: [], prepend: []))
            } else {
                // What the host has under the driver's name is not the driver's; nor may he name the mapped ones.
                rules.append(Rule(kind: .bad, isClients: false, isServers: true, key: [], prepend: key))
                rules.append(Rule(kind: .bad, isClients: true, isServers: false, key: prepend, prepend: []))
                rules.append(Rule(kind: .ok, isClients: true, isServers: true, key: [], prepend: []))
            }
            return true
        }
        guard let kind = Kind(rawValue: type) else {
            throw Self.wrong("'\(type)' is no type: prefix, ok, bad, unsupported or map")
        }
        let scope = try Self.field(&rest, separator)
        guard ["client", "server", "all"].contains(scope) else {
            throw Self.wrong("'\(scope)' is no scope: client, server or all")
        }
        let key = Array(try Self.field(&rest, separator).utf8)
        let prepend = Array(try Self.field(&rest, separator).utf8)
        rules.append(
            Rule(
                kind: kind, isClients: scope != "server", isServers: scope != "client", key: key, prepend: prepend))
        return false
    }

    /// What becomes of a name.
    enum Verdict: Equatable {
        case unchanged
        /// These bytes go before the name, or are taken from its front: the rule's PREPEND.
        case prefixed(rule: Int)
        case refused(Errno)
    }

    /// A name that the driver uses.
    func clientName(_ name: UnsafeBufferPointer<UInt8>) -> Verdict {
        for (index, rule) in rules.enumerated() where unsafe rule.isClients && Self.begins(name, with: rule.key) {
            switch rule.kind {
            case .ok: return .unchanged
            case .bad: return .refused(.notPermitted)
            case .unsupported: return .refused(.notSupported)
            case .prefix: return .prefixed(rule: index)
            }
        }
        return .refused(.notPermitted)
    }

    /// A name that the host lists. Refused: it is hidden.
    func serverName(_ name: UnsafeBufferPointer<UInt8>) -> Verdict {
        for (index, rule) in rules.enumerated() where unsafe rule.isServers && Self.begins(name, with: rule.prepend) {
            switch rule.kind {
            case .ok: return .unchanged
            case .bad, .unsupported: return .refused(.notPermitted)
            case .prefix: return .prefixed(rule: index)
            }
        }
        return .refused(.notPermitted)
    }

    private static func begins(_ name: UnsafeBufferPointer<UInt8>, with prefix: [UInt8]) -> Bool {
        guard name.count >= prefix.count else { return false }
        for index in prefix.indices where unsafe name[index] != prefix[index] { return false }
        return true
    }
}
