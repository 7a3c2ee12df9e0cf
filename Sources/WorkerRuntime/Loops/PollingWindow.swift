internal import Platform

/// How long a loop that has run out of work goes on looking before it sleeps. The window grows while looking pays (work
/// comes within the limit) and shrinks to nothing while it does not, so that an idle queue costs no CPU and a busy one
/// no system calls.
struct PollingWindow {
    /// The limit, in nanoseconds; 0 never polls.
    let maximum: UInt64
    /// The window now, in nanoseconds.
    private(set) var length: UInt64
    private var idleSince: UInt64 = 0
    private var looks = 0

    /// The clock is read once in so many looks.
    private static let looksPerReading = 32
    private static let smallest: UInt64 = 2_000

    init(maximumMicroseconds: Int) {
        maximum = UInt64(max(0, maximumMicroseconds)) * 1_000
        length = maximum
    }

    /// Work was found.
    mutating func foundWork() {
        idleSince = 0
        looks = 0
    }

    /// Nothing was found: look once more, or sleep?
    ///
    /// - Parameter now: the clock, in nanoseconds; it is seldom read.
    mutating func shouldLookAgain(now: @autoclosure () -> UInt64 = monotonicNanoseconds()) -> Bool {
        guard length > 0 else { return false }
        looks += 1
        if looks % Self.looksPerReading != 1 { return true }
        let now = now()
        if idleSince == 0 { idleSince = now }
        return now - idleSince < length
    }

    /// The loop has slept: would a longer look have spared it that?
    mutating func slept(nanoseconds: UInt64) {
        foundWork()
        if nanoseconds < maximum {
            length = min(maximum, max(Self.smallest, length * 2))
        } else {
            length = length / 2 < Self.smallest ? 0 : length / 2
        }
    }
}
