internal import CLinux
internal import Glibc

/// What the kernel tells of one thread of another process, as an open file: whoever has it may look, from wherever he
/// is, without a way to /proc.
public final class ThreadSight: Sendable {
    /// As its own PID namespace numbers it.
    public let number: Int32
    public let fd: OwnedFD

    public init(number: Int32, fd: consuming OwnedFD) {
        self.number = number
        self.fd = fd
    }

    /// All threads that a process has now, but for those that the kernel has made to carry out operations of its rings:
    /// these may be hundreds, and touch nothing of the process's.
    ///
    /// - Parameters:
    ///   - process: as this process's PID namespace numbers it.
    ///   - limit: the most that are looked at.
    /// - Returns: those that could be opened; of one that has just ended there is nothing to open.
    public static func all(of process: Int32, limit: Int = 64) -> [ThreadSight] {
        let names = directoryNames("/proc/\(process)/task").lazy.filter { name in
            readSmallFile("/proc/\(process)/task/\(name)/comm")?.hasPrefix("iou-") == false
        }
        return names.prefix(limit).compactMap { name in
            let place = "/proc/\(process)/task/\(name)"
            guard let number = innermostNumber(readSmallFile("\(place)/status")),
                let file = try? retryingInterrupts({ unsafe open("\(place)/stat", O_RDONLY | O_CLOEXEC) })
            else { return nil }
            return ThreadSight(number: number, fd: OwnedFD(owning: file))
        }
    }

    /// The last number in the line `NSpid:` of a status: that of the innermost namespace.
    private static func innermostNumber(_ status: String?) -> Int32? {
        guard let line = status?.split(separator: "\n").first(where: { $0.hasPrefix("NSpid:") }) else { return nil }
        return line.split(whereSeparator: \.isWhitespace).last.flatMap { Int32($0) }
    }

    /// nil: there is no such thread any more.
    public var state: ThreadState? { ThreadState(statFile: fd) }
}
