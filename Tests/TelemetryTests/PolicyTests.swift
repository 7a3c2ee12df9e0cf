import Platform
import Telemetry
import TestSupport
import Testing

/// Limits as arithmetic, and as what loops and successors find of them in memory.
@Suite struct PolicyTests {
    private let second: UInt64 = 1_000_000_000

    /// Takes whatever a bucket gives, one request of so many units after the other, until `end`.
    ///
    /// - Returns: the instants at which one was given.
    private func take(
        _ units: UInt64, of bucket: RateBucket, fullAt: inout UInt64, from start: UInt64, until end: UInt64
    ) -> [UInt64] {
        var (now, times) = (start, [UInt64]())
        while now < end {
            let delay = bucket.delay(fullAt: fullAt, at: now)
            if delay > 0 {
                now += delay
                continue
            }
            fullAt = bucket.charged(units, fullAt: fullAt, at: now)
            times.append(now)
        }
        return times
    }

    @Test(
        arguments: [(2000, 200, 1), (1, 1, 1), (1 << 20, 1 << 16, 4096), (3333, 1000, 7)] as [(UInt64, UInt64, UInt64)])
    func `in the long run the rate passes, and first the burst`(rate: UInt64, burst: UInt64, units: UInt64) {
        let bucket = RateBucket(rate: rate, burst: burst)
        var fullAt: UInt64 = 0
        let start = 7 * second
        let times = take(units, of: bucket, fullAt: &fullAt, from: start, until: start + 100 * second)
        let passed = UInt64(times.count) * units
        let due = 100 * rate + burst
        // The last one may go into debt.
        #expect(passed >= due - rate / 1000 - 1 && passed <= due + rate / 1000 + units, "\(passed) of \(due)")
        #expect(UInt64(times.filter { $0 == start }.count) == (burst + units - 1) / units)
    }

    @Test func `what is larger than the burst passes, and the next one waits until it is paid`() {
        let bucket = RateBucket(rate: 1000, burst: 100)
        var fullAt: UInt64 = 0
        let times = take(5000, of: bucket, fullAt: &fullAt, from: second, until: 12 * second)
        #expect(times.count == 3)
        for (earlier, later) in zip(times, times.dropFirst()).dropFirst() {
            #expect(later - earlier >= 5 * second && later - earlier < 5 * second + 10)
        }
    }

    @Test func `a bucket that nobody asks is full, never more`() {
        let bucket = RateBucket(rate: 100, burst: 50)
        var fullAt: UInt64 = 0
        _ = take(1, of: bucket, fullAt: &fullAt, from: second, until: 2 * second)
        let times = take(1, of: bucket, fullAt: &fullAt, from: 1000 * second, until: 1000 * second + 1)
        #expect(times.count == 50)
    }

    @Test func `a burst that nobody has chosen is a tenth of a second, and none is shorter than a timer`() {
        #expect(RateBucket(rate: 5000, burst: 0).burstNanoseconds == second / 10)
        #expect(RateBucket(rate: 5000, burst: 1).burstNanoseconds == RateBucket.leastBurstNanoseconds)
        #expect(RateBucket(rate: 0, burst: 0).rate == 1)
    }

    @Test func `nothing overflows`() {
        let bucket = RateBucket(rate: 1, burst: .max)
        let fullAt = bucket.charged(.max, fullAt: .max - 5, at: second)
        #expect(fullAt == .max)
        #expect(bucket.delay(fullAt: fullAt, at: second) > 0)
        #expect(RateBucket(rate: .max, burst: 1).charged(1, fullAt: 0, at: second) == second)
    }

    // MARK: In memory

    private func makeFile() throws -> OwnedFD { try DeviceStatistics.makeFile(queueCount: 1, queueSize: 64) }

    @Test func `a file of a supervisor that knew no policy limits nothing`() throws {
        let statistics = try DeviceStatistics(try makeFile(), writable: true)
        #expect(statistics.policy == DevicePolicy())
        let throttle = Throttle(statistics)
        let (isOn, delay) = (throttle.isOn, throttle.delay(at: second))
        #expect(!isOn && delay == 0)
        let holds = RoomPolicy(statistics).holds
        #expect(!holds)
    }

    @Test func `a limit is held by all loops together, and by the next worker`() throws {
        let file = try makeFile()
        let supervisor = try DeviceStatistics(file, writable: true)
        supervisor.setPolicy(DevicePolicy(limits: RateLimits(operations: 100, operationBurst: 10)))
        let first = Throttle(try DeviceStatistics(file, writable: true))
        let isOn = first.isOn
        #expect(isOn)
        for _ in 0..<5 { first.charge(bytes: 0, at: second) }
        // Another loop, or whoever follows a worker that was killed: no fresh burst.
        let second = Throttle(try DeviceStatistics(file, writable: true))
        for _ in 0..<5 {
            #expect(second.delay(at: self.second) == 0)
            second.charge(bytes: 0, at: self.second)
        }
        #expect(first.delay(at: self.second) > 0 && second.delay(at: self.second) > 0)
        // The same policy again, from a supervisor that has come back: nothing changes.
        supervisor.setPolicy(DevicePolicy(limits: RateLimits(operations: 100, operationBurst: 10)))
        #expect(first.delay(at: self.second) > 0)
        #expect(first.delay(at: self.second + 10_000_001) == 0)
        // Another one begins with a full bucket.
        supervisor.setPolicy(DevicePolicy(limits: RateLimits(operations: 50)))
        #expect(first.delay(at: self.second) == 0)
        supervisor.setPolicy(DevicePolicy())
        let isOff = !first.isOn
        #expect(isOff && supervisor.policy == DevicePolicy())
    }

    @Test func `requests and bytes are limited apart, and what moves no data pays no bytes`() throws {
        let statistics = try DeviceStatistics(queueCount: 1, queueSize: 64)
        statistics.setPolicy(DevicePolicy(limits: RateLimits(bandwidth: 1 << 20, bandwidthBurst: 1 << 16)))
        let throttle = Throttle(statistics)
        for _ in 0..<1000 { throttle.charge(bytes: 0, at: second) }
        #expect(throttle.delay(at: second) == 0)
        throttle.charge(bytes: 1 << 20, at: second)
        let delay = throttle.delay(at: second)
        #expect(delay > second * 9 / 10 && delay < second)
    }

    @Test func `charges of two loops at once are both paid`() throws {
        let statistics = try DeviceStatistics(queueCount: 1, queueSize: 64)
        statistics.setPolicy(DevicePolicy(limits: RateLimits(operations: 1000, operationBurst: 10)))
        let charge: @Sendable () -> Void = { [second] in
            let throttle = Throttle(statistics)
            for _ in 0..<20_000 { throttle.charge(bytes: 0, at: second) }
        }
        let thread = try JoinableThread(name: "charger", charge)
        charge()
        thread.join()
        // 40000 requests at 1000 a second, less the burst.
        #expect(Throttle(statistics).delay(at: second) == 40 * second - 10_000_000 + 1)
    }
}
