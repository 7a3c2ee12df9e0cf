/// Tells a loop that goes on no more from one that has nothing to do, by what it shows of itself: nobody is woken for
/// it.
///
/// A loop makes rounds. One that makes none has either work that it does not do, or is asleep with nothing to do. It
/// has work when it is awake; and asleep, when something has arrived for it: a kick, a command, a completion. What
/// the kernel has is no work: however slow the storage is, a loop that waits for it sleeps.
struct LoopWatch: Hashable {
    /// One look at a loop.
    struct Look: Hashable {
        var turns: UInt64
        var isResting: Bool
        /// Something has come for it that it has not taken.
        var hasArrivals: Bool
    }

    private var turns: UInt64?
    private var lastTime: UInt64 = 0
    private var stuck: UInt64 = 0

    /// - Parameters:
    ///   - now: in nanoseconds.
    ///   - limit: of the caller's patience, in nanoseconds. A single interval counts for half of it at most: when the
    ///     whole machine stood still, nobody is to blame.
    /// - Returns: for how long it has had work and made no round, in nanoseconds.
    mutating func observe(_ look: Look, at now: UInt64, limit: UInt64) -> UInt64 {
        let hasWork = !look.isResting || look.hasArrivals
        stuck = turns == look.turns && hasWork ? stuck + min(now - lastTime, limit / 2) : 0
        turns = look.turns
        lastTime = now
        return stuck
    }
}
