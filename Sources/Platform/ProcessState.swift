/// What the kernel tells of a thread, or of a process's main thread.
public struct ThreadState: Sendable {
    /// As ps shows it: R, S, D, T, Z, X…
    public let letter: Character
    /// PF_… of linux/sched.h.
    public let flags: UInt32

    /// PF_EXITING, set from the start of do_exit; PF_POSTCOREDUMP, set before that when a signal ends the process.
    private static let exiting: UInt32 = 0x4 | 0x8

    /// - Parameter thread: nil for the main thread.
    /// - Returns: nil when there is no such thread.
    public init?(process: Int32, thread: Int32? = nil) {
        let place = thread.map { "/proc/\(process)/task/\($0)/stat" } ?? "/proc/\(process)/stat"
        // The name, in parentheses, may hold anything: what counts follows the last one.
        guard let text = readSmallFile(place), let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 6, let letter = fields[0].first, let flags = UInt32(fields[6]) else { return nil }
        self.letter = letter
        self.flags = flags
    }

    /// It runs no instruction of its program any more.
    public var isOver: Bool { flags & Self.exiting != 0 || letter == "Z" || letter == "X" }
}
