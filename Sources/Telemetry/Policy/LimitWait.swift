/// Requests of one queue that stay in the ring because the device is at its limit. One loop owns it.
public struct LimitWait: Sendable {
    /// When the next one may be taken, in nanoseconds of CLOCK_MONOTONIC; 0: now.
    private var end: UInt64 = 0
    /// Until when the waiting has been counted; 0: nothing waits.
    private var countedTo: UInt64 = 0

    /// What is counted of one wait at most, between two looks: loops look ten times a second.
    private static var longestLook: UInt64 { 1_000_000_000 }

    public init() {}

    /// Whether no request may be taken now. Counts the time in which that is so. To be asked when there is a request.
    ///
    /// - Parameter meter: of the queue; its batch has begun.
    public mutating func holds(_ throttle: borrowing Throttle, _ meter: inout QueueMeter) -> Bool {
        let now = meter.batchTime
        let delay = throttle.delay(at: now)
        end = delay == 0 ? 0 : now &+ delay
        guard delay > 0 else { return false }
        if countedTo != 0, now > countedTo {
            meter.countThrottled(nanoseconds: min(now - countedTo, Self.longestLook))
        }
        countedTo = now
        return true
    }

    /// All requests that were there have been taken.
    public mutating func isOver() { countedTo = 0 }

    /// When the queue is to be looked at again although nothing calls for it, in nanoseconds of CLOCK_MONOTONIC; nil:
    /// no request waits. To be asked after a turn that has found nothing to do, once.
    public mutating func takeEnd(_ throttle: borrowing Throttle) -> UInt64? {
        let end = end
        self.end = 0
        return end != 0 && throttle.isOn ? end : nil
    }
}
