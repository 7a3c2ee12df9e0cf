internal import Platform
internal import Synchronization

/// How many lines may be written: a peer that is refused again and again must not fill the journal. A burst is let
/// through, then so many in a second; lines that are left out are counted, and the next one says how many there were.
final class LogBudget: Sendable {
    /// Lines that may come at once.
    static let burst = 100
    /// Lines that are added in a second, up to the burst.
    static let perSecond = 5

    private struct State {
        var left = LogBudget.burst
        /// When the last lines were added.
        var filledAt: UInt64
        var leftOut = 0
    }

    private let state: Mutex<State>

    init(now: UInt64 = monotonicNanoseconds()) {
        state = Mutex(State(filledAt: now))
    }

    /// Takes a line's worth.
    ///
    /// - Parameter now: on the monotonic clock, in nanoseconds.
    /// - Returns: how many lines were left out since the last one that was not; nil: leave this one out.
    func take(now: UInt64 = monotonicNanoseconds()) -> Int? {
        state.withLock { state in
            let interval = 1_000_000_000 / UInt64(Self.perSecond)
            let earned = now > state.filledAt ? (now - state.filledAt) / interval : 0
            state.filledAt += earned * interval
            state.left = Int(min(UInt64(Self.burst), UInt64(state.left) + min(earned, UInt64(Self.burst))))
            guard state.left > 0 else {
                state.leftOut += 1
                return nil
            }
            state.left -= 1
            defer { state.leftOut = 0 }
            return state.leftOut
        }
    }
}
