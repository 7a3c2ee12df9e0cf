import Testing

@testable import WorkerRuntime

/// When a loop that has run out of work goes on looking, and when it sleeps.
@Suite struct PollingWindowTests {
    /// Looks until the window is over, on a clock that moves by `step` nanoseconds a look.
    ///
    /// - Returns: nanoseconds that were spent looking.
    private func look(_ window: inout PollingWindow, step: UInt64 = 10) -> UInt64 {
        var now: UInt64 = 1_000_000
        let start = now
        while window.shouldLookAgain(now: now) { now += step }
        return now - start
    }

    @Test func `without a limit it never looks again`() {
        var window = PollingWindow(maximumMicroseconds: 0)
        var looks = window.shouldLookAgain()
        #expect(!looks)
        window.slept(nanoseconds: 1)
        looks = window.shouldLookAgain()
        #expect(!looks)
    }

    @Test func `it looks for the length of its window, within a few looks`() {
        var window = PollingWindow(maximumMicroseconds: 50)
        let spent = look(&window)
        #expect(spent >= 50_000 && spent < 50_000 + 32 * 10 * 2)
    }

    @Test func `work starts the window anew`() {
        var window = PollingWindow(maximumMicroseconds: 50)
        _ = look(&window)
        window.foundWork()
        let spent = look(&window)
        #expect(spent >= 50_000)
    }

    @Test func `long sleeps shrink it to nothing, a short one brings it back`() {
        var window = PollingWindow(maximumMicroseconds: 50)
        var lengths: [UInt64] = []
        for _ in 0..<8 {
            window.slept(nanoseconds: 1_000_000_000)
            lengths.append(window.length)
        }
        #expect(lengths == [25_000, 12_500, 6_250, 3_125, 0, 0, 0, 0])
        let looks = window.shouldLookAgain()
        #expect(!looks)
        for expected in [2_000, 4_000, 8_000, 16_000, 32_000, 50_000, 50_000] as [UInt64] {
            window.slept(nanoseconds: 49_999)
            #expect(window.length == expected)
        }
    }
}
