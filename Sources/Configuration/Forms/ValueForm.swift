/// What was read of a value. Each accessor is for the forms that give it.
struct ReadValue: Hashable {
    var text = ""
    var integer = 0
    var flag = false
    var integers: [Int] = []
    /// By the names of `LimitForm`.
    var entries: [String: Int] = [:]
}

/// What a key takes.
enum ValueForm: Sendable {
    case flag
    case integer(ClosedRange<Int>)
    case integerChoice([Int])
    case choice([String])
    /// Begins with a slash; at most so many bytes.
    case path(limit: Int)
    case serial
    case integers(ClosedRange<Int>, count: Int)
    case mode
    /// A name or a number of a user or group.
    case account(String)
    case bytes(ClosedRange<Int>)
    /// A table of rate limits.
    case limit
    /// Of a virtio-fs device.
    case tag
    /// Ranges of users or groups.
    case identifiers
    /// What becomes of names of extended attributes.
    case attributeRules

    /// For people: the range, in the form of the documentation's table.
    var description: String {
        switch self {
        case .flag: "true, false"
        case .integer(let range): "\(range.lowerBound) to \(range.upperBound)"
        case .integerChoice(let values): values.map(String.init).joined(separator: ", ")
        case .choice(let words): words.map { "\"\($0)\"" }.joined(separator: ", ")
        case .path(let limit): "an absolute path of at most \(limit) bytes"
        case .serial: "at most 20 printable ASCII characters"
        case .integers(let range, let count):
            "a list of at most \(count) numbers from \(range.lowerBound) to \(range.upperBound)"
        case .mode: "\"0000\" to \"0777\""
        case .account(let kind): "a \(kind)'s name or number"
        case .limit: LimitForm.description
        case .tag: "1 to 36 bytes"
        case .identifiers: "\"GUEST:HOST:COUNT\", or a list of at most 340"
        case .attributeRules: "\":TYPE:SCOPE:KEY:PREPEND:…\""
        case .bytes(let range): "\"\(Self.size(range.lowerBound))\" to \"\(Self.size(range.upperBound))\", or bytes"
        }
    }

    private static func size(_ bytes: Int) -> String {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] where bytes % (1 << shift) == 0 {
            return "\(bytes >> shift)\(unit)"
        }
        return "\(bytes)"
    }

    /// What is wrong with a value, and what would be right.
    struct Complaint: Error {
        var reason: String
        var suggestion: String
        /// The key within the value; empty: the value itself.
        var place = ""
    }

    func read(_ value: ConfigurationValue) throws(Complaint) -> ReadValue {
        switch (self, value) {
        case (.flag, .flag(let flag)): return ReadValue(flag: flag)
        case (.flag, _): throw wrongKind(value, "true or false")
        case (.integer(let range), .integer(let number)):
            guard range.contains(number) else { throw outOfRange(number) }
            return ReadValue(integer: number)
        case (.integer, .text(let text)) where Int(text) != nil:
            throw Complaint(reason: "this takes an integer, not a string", suggestion: "write \(text) without quotes")
        case (.integer, _): throw wrongKind(value, "an integer")
        case (.integerChoice(let choices), .integer(let number)):
            guard choices.contains(number) else { throw outOfRange(number) }
            return ReadValue(integer: number)
        case (.integerChoice, _): throw wrongKind(value, "an integer")
        case (.choice(let words), .text(let text)):
            guard words.contains(text) else { throw notAmong(text, words) }
            return ReadValue(text: text)
        case (.path(let limit), .text(let text)): return try path(text, limit)
        case (.serial, .text(let text)):
            guard text.utf8.count <= 20, text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f }) else {
                throw Complaint(
                    reason: "\"\(text)\" is no serial number",
                    suggestion: "use at most 20 printable ASCII characters; this has \(text.utf8.count) bytes")
            }
            return ReadValue(text: text)
        case (.integers(let range, let count), _): return try integers(value, range, count)
        case (.mode, _): return try mode(value)
        case (.account, .text(let text)) where !text.isEmpty: return ReadValue(text: text)
        case (.account, .integer(let number)) where UInt32(exactly: number) != nil: return ReadValue(text: "\(number)")
        case (.bytes(let range), _): return try bytes(value, range)
        case (.limit, _): return ReadValue(entries: try LimitForm.read(value))
        case (.tag, .text(let text)): return try Self.tag(text)
        case (.identifiers, _): return try Self.identifiers(value)
        case (.attributeRules, .text(let text)): return try Self.attributeRules(text)
        case (.choice, _), (.path, _), (.serial, _), (.account, _), (.tag, _), (.attributeRules, _):
            throw wrongKind(value, "a string")
        }
    }

    private func wrongKind(_ value: ConfigurationValue, _ wanted: String) -> Complaint {
        Complaint(reason: "this takes \(wanted), not \(value.kind)", suggestion: "allowed: \(description)")
    }

    private func outOfRange(_ number: Int) -> Complaint {
        Complaint(reason: "\(number) is not possible", suggestion: "allowed: \(description)")
    }

    private func notAmong(_ text: String, _ words: [String]) -> Complaint {
        let nearest = Spelling.nearest(to: text, among: words)
        return Complaint(
            reason: "\"\(text)\" is not possible",
            suggestion: nearest.map { "did you mean \"\($0)\"?" } ?? "allowed: \(description)")
    }

    private func path(_ text: String, _ limit: Int) throws(Complaint) -> ReadValue {
        guard text.hasPrefix("/") else {
            throw Complaint(
                reason: "\"\(text)\" is not an absolute path",
                suggestion: "begin it with /: batond has no folder of its own")
        }
        guard text.utf8.count <= limit else {
            throw Complaint(
                reason: "the path has \(text.utf8.count) bytes", suggestion: "allowed: at most \(limit) bytes")
        }
        guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) else {
            throw Complaint(reason: "the path has control characters", suggestion: "leave them out")
        }
        return ReadValue(text: text)
    }

    private func integers(
        _ value: ConfigurationValue, _ range: ClosedRange<Int>, _ count: Int
    ) throws(Complaint) -> ReadValue {
        var numbers: [Int] = []
        switch value {
        case .list(let elements):
            for element in elements {
                guard case .integer(let number) = element else { throw wrongKind(element, "a list of integers") }
                numbers.append(number)
            }
        case .text(let text):
            // As on the command line.
            for part in text.split(separator: ",", omittingEmptySubsequences: false) {
                guard let number = Int(part) else { throw wrongKind(value, "a list of integers") }
                numbers.append(number)
            }
        default: throw wrongKind(value, "a list of integers")
        }
        if let number = numbers.first(where: { !range.contains($0) }) { throw outOfRange(number) }
        guard numbers.count <= count else {
            throw Complaint(reason: "the list has \(numbers.count) numbers", suggestion: "allowed: \(description)")
        }
        return ReadValue(integers: numbers)
    }

    private func mode(_ value: ConfigurationValue) throws(Complaint) -> ReadValue {
        guard case .text(let text) = value else {
            throw Complaint(
                reason: "this takes a string of octal digits, not \(value.kind)", suggestion: "write it as \"0660\"")
        }
        guard (3...4).contains(text.utf8.count), let mode = UInt32(text, radix: 8), mode <= 0o777 else {
            throw Complaint(reason: "\"\(text)\" is no mode", suggestion: "allowed: \(description), such as \"0660\"")
        }
        return ReadValue(text: "0" + String(mode, radix: 8))
    }

    private func bytes(_ value: ConfigurationValue, _ range: ClosedRange<Int>) throws(Complaint) -> ReadValue {
        let bytes: Int?
        switch value {
        case .integer(let number): bytes = number
        case .text(let text): bytes = ByteCount(text)?.bytes
        default: throw wrongKind(value, "a size")
        }
        guard let bytes, range.contains(bytes) else {
            throw Complaint(reason: "\(value.kind) is no possible size", suggestion: "allowed: \(description)")
        }
        return ReadValue(integer: bytes)
    }
}

/// A number of bytes as people write it: 4096, 512K, 20M, 8G, 2T; units are powers of 1024.
public struct ByteCount: Hashable, Sendable {
    public var bytes: Int

    /// - Returns: nil for what is none, or does not fit.
    public init?(_ text: String) {
        let units: [Character: Int] = ["K": 10, "M": 20, "G": 30, "T": 40]
        var digits = Substring(text)
        var shift = 0
        if let last = digits.last, let unit = units[Character(last.uppercased())] {
            shift = unit
            digits.removeLast()
        }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(digits) else {
            return nil
        }
        let (bytes, isTooLarge) = number.multipliedReportingOverflow(by: 1 << shift)
        guard !isTooLarge else { return nil }
        self.bytes = bytes
    }
}
