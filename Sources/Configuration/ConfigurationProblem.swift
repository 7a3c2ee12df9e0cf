/// Something about a configuration that an operator has to know, with the place where it is.
public struct ConfigurationProblem: Error, Codable, Hashable, Sendable, CustomStringConvertible {
    public enum Severity: String, Codable, Hashable, Sendable {
        /// The configuration is not applied.
        case error
        /// It is, and something does not work yet.
        case warning
    }

    public var severity: Severity
    /// The path of the file.
    public var file: String
    /// Where in the file, from 1 on; absent where the key says it.
    public var line: Int?
    public var column: Int?
    /// Such as `disk.db.queue-size`; absent where the line says it.
    public var key: String?
    /// What is wrong, as a sentence without its full stop.
    public var reason: String
    /// What to do, as a sentence without its full stop.
    public var suggestion: String?

    public init(
        _ severity: Severity = .error, in file: String, line: Int? = nil, column: Int? = nil, key: String? = nil,
        _ reason: String, suggestion: String? = nil
    ) {
        self.severity = severity
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.reason = reason
        self.suggestion = suggestion
    }

    /// On one line, in the form that editors know: `FILE:LINE:COLUMN: error: …`.
    public var description: String {
        var place = file
        if let line { place += ":\(line)" }
        if let column { place += ":\(column)" }
        let about = key.map { "\($0): " } ?? ""
        return "\(place): \(severity.rawValue): \(about)\(reason)" + (suggestion.map { " (\($0))" } ?? "")
    }
}
