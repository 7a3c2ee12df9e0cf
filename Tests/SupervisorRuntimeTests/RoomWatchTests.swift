import Testing

@testable import SupervisorRuntime

/// When an operator is told that a device waits for room on the host.
@Suite struct RoomWatchTests {
    @Test func `waiting is told once, going on when it is sure`() {
        var watch = RoomWatch()
        #expect(watch.observe(held: 0) == nil)
        #expect(watch.observe(held: 2) == .waits)
        #expect(watch.observe(held: 3) == nil)
        // They are being tried again.
        #expect(watch.observe(held: 0) == nil)
        #expect(watch.observe(held: 3) == nil)
        #expect(watch.observe(held: 0) == nil)
        #expect(watch.observe(held: 0) == .goesOn)
        #expect(watch.observe(held: 0) == nil)
        #expect(watch.observe(held: 1) == .waits)
    }
}
