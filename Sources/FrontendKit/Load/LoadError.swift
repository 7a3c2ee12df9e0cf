public import Platform

/// Why a load did not come to its end.
public enum LoadError: Error, Sendable, CustomStringConvertible {
    /// The back-end broke the rules of a queue.
    case violation(QueueViolation, queue: Int)
    /// The back-end broke the rules of a file system's queue.
    case files(FileViolation, queue: Int)
    /// Requests are outstanding, and nothing completed for so long.
    case stalled(outstanding: Int, milliseconds: Int)
    /// The kernel refused something that the load itself needs.
    case system(SystemError)

    public var description: String {
        switch self {
        case .violation(let violation, let queue): "queue \(queue): \(violation)"
        case .files(let violation, let queue): "queue \(queue): \(violation)"
        case .stalled(let outstanding, let milliseconds):
            "\(outstanding) requests are outstanding and none completed for \(milliseconds) ms"
        case .system(let error): "\(error)"
        }
    }
}
