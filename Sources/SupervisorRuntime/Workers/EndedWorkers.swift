internal import Platform

/// Processes that have ended and are not reaped yet.
///
/// Not at once: a process ends for its parent before its last thread has taken its entries out of /proc. Whoever reaps
/// it then spins in the kernel until that thread has got a CPU, 200 ms were seen, and keeps one from the successor.
struct EndedWorkers {
    private var waiting: [(process: Int32, due: UInt64)] = []

    private static let delay: UInt64 = 1_000_000_000
    private static let maximumCount = 64

    mutating func add(_ process: Int32, at now: UInt64) {
        waiting.append((process, now + Self.delay))
        if waiting.count > Self.maximumCount { DetachedProcess.letGo(of: waiting.removeFirst().process) }
    }

    /// When the next is due, in nanoseconds of CLOCK_MONOTONIC; nil: there is none.
    var nextDeadline: UInt64? { waiting.first?.due }

    /// - Parameter now: later ones stay; `.max`: all go.
    mutating func reap(at now: UInt64) {
        while let first = waiting.first, first.due <= now { DetachedProcess.letGo(of: waiting.removeFirst().process) }
    }
}
