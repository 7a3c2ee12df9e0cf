internal import Glibc
public import Logging
internal import Platform

/// Writes one line per event to standard error: level, program, message, then `key=value` pairs in alphabetical order.
///
/// Time stamps are left to whoever collects the lines (the journal adds its own), unless standard error is a terminal.
/// The number of lines is limited (`LogBudget`): levels below info, which nobody sees unless he asks, are not counted.
public struct StandardErrorLog: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var logLevel: Logger.Level = .info
    private let label: String
    private let budget = LogBudget()

    public init(label: String) {
        self.label = label
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var leftOut = 0
        if event.level >= .info {
            guard let count = budget.take() else { return }
            leftOut = count
        }
        var line = "\(label)[\(event.level)] "
        // A line feed in a message, perhaps from a peer's data, must not start a second line.
        for character in "\(event.message)" { line.append(character.isNewline ? " " : character) }
        var pairs = metadata.merging(event.metadata ?? [:]) { _, new in new }
        if leftOut > 0 { pairs["lines-left-out"] = "\(leftOut)" }
        for (key, value) in pairs.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(value)" }
        line += "\n"
        printText(line, to: STDERR_FILENO)
    }
}
