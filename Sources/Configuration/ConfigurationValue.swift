internal import TOMLKit

/// A value of a file, as far as any key takes it.
indirect enum ConfigurationValue: Hashable {
    case text(String)
    case integer(Int)
    case flag(Bool)
    case list([ConfigurationValue])
    case table([String: ConfigurationValue])
    /// What no key takes; the text says what it is.
    case other(String)

    init(_ value: any TOMLValueConvertible) {
        switch value.type {
        case .string: self = value.string.map { .text($0) } ?? .other("a string")
        case .int: self = value.int.map { .integer($0) } ?? .other("an integer")
        case .bool: self = value.bool.map { .flag($0) } ?? .other("a boolean")
        case .array: self = .list((value.array.map { Array($0) } ?? []).map { ConfigurationValue($0) })
        case .table:
            let table = value.table
            let pairs = (table?.keys ?? []).compactMap { key in table?[key].map { (key, ConfigurationValue($0)) } }
            self = .table(Dictionary(pairs) { first, _ in first })
        case .double: self = .other("a number with a fraction")
        case .date, .time, .dateTime: self = .other("a date or time")
        }
    }

    /// What kind of value it is, for sentences.
    var kind: String {
        switch self {
        case .text(let text): "the string \"\(text)\""
        case .integer(let number): "the integer \(number)"
        case .flag(let flag): "\(flag)"
        case .list: "a list"
        case .table: "a table"
        case .other(let kind): kind
        }
    }
}
