internal import Glibc
public import Logging
internal import Platform

/// Writes one line per event to standard error: level, program, message, then `key=value` pairs in alphabetical order;
/// or, where there is a journal, an entry with a field for each pair.
///
/// Time stamps are left to whoever collects the lines (the journal adds its own), unless standard error is a terminal.
/// The number of lines is limited (`LogBudget`): levels below info, which nobody sees unless he asks, are not counted.
public struct StandardErrorLog: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var logLevel: Logger.Level = .info
    private let label: String
    private let journal: JournalSocket
    private let budget = LogBudget()

    /// - Parameter journal: where entries go, if it leads anywhere.
    public init(label: String, journal: JournalSocket = JournalSocket()) {
        self.label = label
        self.journal = journal
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
        var text = ""
        // A line feed in a message, perhaps from a peer's data, must not start a second line.
        for character in "\(event.message)" { text.append(character.isNewline ? " " : character) }
        var pairs = metadata.merging(journal.commonMetadata) { _, new in new }
        pairs.merge(event.metadata ?? [:]) { _, new in new }
        if leftOut > 0 { pairs["lines-left-out"] = "\(leftOut)" }
        for (key, value) in pairs.sorted(by: { $0.key < $1.key }) { text += " \(key)=\(value)" }
        let entry = JournalEntry(level: event.level, label: label, message: text, pairs: pairs)
        if case .impossible = journal.send(entry) { printText("\(label)[\(event.level)] \(text)\n", to: STDERR_FILENO) }
    }
}
