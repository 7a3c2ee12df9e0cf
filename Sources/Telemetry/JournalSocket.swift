internal import Glibc
internal import Logging
public import Platform
internal import Synchronization

/// Where a process logs to, and as whom: to the journal of systemd, in its own protocol
/// (systemd.io/JOURNAL_NATIVE_PROTOCOL), where one datagram is one entry with fields; or, without one, in lines to
/// standard error.
///
/// The protocol is a few lines, and workers link no library of systemd's.
public final class JournalSocket: Sendable {
    /// -1: there is none.
    private let current = Atomic<Int32>(-1)
    private let generation = Atomic<UInt64>(0)

    /// Where journald listens.
    public static let path = "/run/systemd/journal/socket"

    /// No way yet: see `adopt`.
    public init() {}

    /// Makes all that is logged from now on go this way.
    ///
    /// - Parameter fd: a connected datagram socket. It stays open for as long as the process lives.
    public func adopt(_ fd: consuming OwnedFD) {
        _ = fcntl(fd.number, F_SETFL, O_NONBLOCK)
        // Somebody may be writing to the one before, so that stays open, too.
        current.store(fd.release(), ordering: .releasing)
    }

    /// The socket, for whoever starts other processes; nil: there is none.
    public var number: Int32? {
        let number = current.load(ordering: .acquiring)
        return number < 0 ? nil : number
    }

    /// Connects to the journal if standard error goes there: then whoever started this process wants its log there.
    public static func ofStandardError() -> JournalSocket {
        let socket = JournalSocket()
        guard isStandardErrorTheJournal, let fd = try? connect(path) else { return socket }
        socket.adopt(fd)
        return socket
    }

    /// Connects to whoever listens at a path as journald does.
    ///
    /// - Throws: why nobody does.
    public static func connect(_ path: String) throws(Errno) -> OwnedFD {
        let fd = OwnedFD(
            owning: try retryingInterrupts {
                Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            })
        try connectSocket(fd, to: path)
        return fd
    }

    /// systemd says which file it has given as standard output or error (systemd.exec(5), $JOURNAL_STREAM).
    private static var isStandardErrorTheJournal: Bool {
        guard let text = unsafe getenv("JOURNAL_STREAM") else { return false }
        let numbers = unsafe String(cString: text).split(separator: ":").map { UInt64($0) }
        var status = stat()
        guard numbers.count == 2, unsafe fstat(STDERR_FILENO, &status) == 0 else { return false }
        return numbers[0] == UInt64(status.st_dev) && numbers[1] == UInt64(status.st_ino)
    }

    /// Gives every entry and every line from now on the number under which this worker has its device.
    public func setGeneration(_ number: UInt64) { generation.store(number, ordering: .relaxed) }

    /// What every entry and every line has.
    var commonMetadata: Logger.Metadata {
        let number = generation.load(ordering: .relaxed)
        return number == 0 ? [:] : ["generation": "\(number)"]
    }

    /// What became of an entry.
    enum Outcome {
        case sent
        /// The journal does not keep up: it is lost, as with any log that must not be waited for.
        case dropped
        /// It has to go another way.
        case impossible
    }

    /// Sends an entry.
    func send(_ entry: JournalEntry) -> Outcome {
        guard let number else { return .impossible }
        let bytes = entry.bytes
        while true {
            if unsafe write(number, bytes, bytes.count) == bytes.count { return .sent }
            switch Errno.current {
            case .interrupted: continue
            case .wouldBlock: return .dropped
            default: return .impossible
            }
        }
    }
}

/// An entry of the journal.
struct JournalEntry {
    private(set) var bytes: [UInt8] = []

    /// - Parameter pairs: become fields `BATON_NAME`.
    init(level: Logger.Level, label: String, message: String, pairs: Logger.Metadata) {
        add("MESSAGE", message)
        add("PRIORITY", "\(level.priority)")
        add("SYSLOG_IDENTIFIER", label)
        for (key, value) in pairs.sorted(by: { $0.key < $1.key }) { add("BATON_" + Self.fieldName(key), "\(value)") }
    }

    /// Upper-case letters, digits and underscores are what field names have.
    private static func fieldName(_ key: String) -> String {
        String(key.uppercased().map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })
    }

    private mutating func add(_ name: String, _ value: String) {
        bytes += name.utf8
        // A value with a line feed would begin another field: its length is told instead.
        if value.utf8.contains(UInt8(ascii: "\n")) {
            bytes.append(UInt8(ascii: "\n"))
            let count = UInt64(value.utf8.count)
            for shift in stride(from: 0, to: 64, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: count >> UInt64(shift)))
            }
        } else {
            bytes.append(UInt8(ascii: "="))
        }
        bytes += value.utf8
        bytes.append(UInt8(ascii: "\n"))
    }
}

extension Logger.Level {
    /// syslog(3)'s.
    fileprivate var priority: Int {
        switch self {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}
