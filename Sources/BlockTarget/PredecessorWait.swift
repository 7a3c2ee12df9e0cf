public import Platform

/// How a worker that starts waits for what the one before it has left under way: requests that the storage still
/// carries out, or a process that was killed and cannot end yet.
///
/// Nothing announces the end of such a wait for O_EXCL, so it looks again and again, at most every 16 ms.
public struct PredecessorWait: Sendable {
    /// What is told of a wait.
    public enum Stage: Sendable, Equatable {
        /// It begins: the text says what for.
        case begins(String)
        /// It has lasted so long.
        case goesOn(String, milliseconds: Int)
        /// It is over.
        case ends(milliseconds: Int)
    }

    /// What is in the way.
    enum Obstacle {
        /// Something of a worker that has died; it will pass.
        case predecessor(String)
        /// Something that nobody knows; it passes soon, or it is somebody else's.
        case foreign(String)
    }

    /// The longest wait, in milliseconds.
    public var limitMilliseconds: Int
    /// Is told of each wait that is not over at once.
    public var report: @Sendable (Stage) -> Void
    /// Sleeps for so many milliseconds; returns false to give up.
    public var nap: @Sendable (Int32) -> Bool

    /// How long what nobody knows may be in the way, in milliseconds.
    static let graceMilliseconds = 2_000
    private static let reportMilliseconds = 10_000

    public init(
        limitMilliseconds: Int = 300_000, report: @escaping @Sendable (Stage) -> Void = { _ in },
        nap: @escaping @Sendable (Int32) -> Bool = { milliseconds in
            pause(milliseconds: milliseconds)
            return true
        }
    ) {
        self.limitMilliseconds = limitMilliseconds
        self.report = report
        self.nap = nap
    }

    /// Waits until `isOver`.
    ///
    /// - Parameter obstacle: says what is in the way, or throws when waiting is no use.
    /// - Throws: what `obstacle` throws; when the limit is reached, what was in the way (EBUSY when that is nothing of
    ///   a predecessor); when `nap` gave up.
    func until(
        _ path: String, isOver: () -> Bool, obstacle: () throws(SystemError) -> Obstacle
    ) throws(SystemError) {
        let start = monotonicNanoseconds()
        var nextReport = 0
        var nextNap: Int32 = 1
        while !isOver() {
            let waited = Int((monotonicNanoseconds() - start) / 1_000_000)
            let (text, limit, errno): (String, Int, Errno?) =
                switch try obstacle() {
                case .predecessor(let text): (text, limitMilliseconds, nil)
                case .foreign(let text): (text, min(limitMilliseconds, Self.graceMilliseconds), .busy)
                }
            guard waited < limit else {
                throw SystemError(
                    cannot: "serve", path, errno, advice: "After \(waited) ms \(text): try again when that is over")
            }
            if waited >= nextReport {
                report(nextReport == 0 ? .begins(text) : .goesOn(text, milliseconds: waited))
                nextReport = waited + Self.reportMilliseconds
            }
            guard nap(nextNap) else {
                throw SystemError(cannot: "serve", path, nil, advice: "Asked to end while \(text)")
            }
            nextNap = min(16, 2 * nextNap)
        }
        if nextReport > 0 { report(.ends(milliseconds: Int((monotonicNanoseconds() - start) / 1_000_000))) }
    }
}
