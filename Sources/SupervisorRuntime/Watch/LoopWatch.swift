internal import Custody

/// Tells a loop that goes on no more from one that has nothing to do, by what it shows of itself: nobody is woken for
/// it.
///
/// A loop makes rounds, and in a round handles one request after the other, which may take long each. One that does
/// neither has either work that it does not do, or is asleep with nothing to do. It has work when it is awake; and
/// asleep, when something has arrived for it: a kick, a command, a completion. What the kernel has is no work: however
/// slow the storage is, a loop that waits for it sleeps.
struct LoopWatch {
    /// One look at a loop.
    struct Look: Hashable {
        var turns: UInt64
        var handling: HandledRequest?
        var isResting: Bool
        /// Something has come for it that it has not taken.
        var hasArrivals: Bool
    }

    private var last: (turns: UInt64, handling: HandledRequest?)?
    private var lastTime: UInt64 = 0
    private var stuck: UInt64 = 0

    /// - Parameters:
    ///   - now: in nanoseconds.
    ///   - limit: of the caller's patience, in nanoseconds. A single interval counts for half of it at most: when the
    ///     whole machine stood still, nobody is to blame.
    /// - Returns: for how long it has had work and not gone on, in nanoseconds.
    mutating func observe(_ look: Look, at now: UInt64, limit: UInt64) -> UInt64 {
        let hasWork = !look.isResting || look.hasArrivals
        let goesOn = last.map { $0.turns != look.turns || $0.handling != look.handling } ?? true
        stuck = !goesOn && hasWork ? stuck + min(now - lastTime, limit / 2) : 0
        last = (look.turns, look.handling)
        lastTime = now
        return stuck
    }
}
