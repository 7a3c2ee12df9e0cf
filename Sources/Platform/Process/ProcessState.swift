internal import Glibc

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
        guard let text = readSmallFile(place) else { return nil }
        self.init(text)
    }

    /// - Parameter file: an open /proc/PID/task/TID/stat.
    /// - Returns: nil when there is no such thread any more.
    public init?(statFile file: borrowing OwnedFD) {
        var error = Errno(rawValue: ESRCH)
        let text = unsafe withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { buffer -> String? in
            do throws(Errno) {
                let count = try retryingInterrupts { unsafe pread(file.number, buffer.baseAddress, buffer.count, 0) }
                return unsafe String(decoding: buffer.prefix(count), as: UTF8.self)
            } catch let failure {
                error = failure
                return nil
            }
        }
        if text == nil, error != Errno(rawValue: ESRCH) {
            // Nothing is known of it: then it runs.
            self.init(letter: "?", flags: 0)
            return
        }
        guard let text else { return nil }
        self.init(text)
    }

    private init(letter: Character, flags: UInt32) {
        self.letter = letter
        self.flags = flags
    }

    private init?(_ text: String) {
        // The name, in parentheses, may hold anything: what counts follows the last one.
        guard let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 6, let letter = fields[0].first, let flags = UInt32(fields[6]) else { return nil }
        self.letter = letter
        self.flags = flags
    }

    /// It runs no instruction of its program any more.
    public var isOver: Bool { flags & Self.exiting != 0 || letter == "Z" || letter == "X" }
}
