import KillKit
import TestSupport
import Testing

/// A worker that runs on its own is killed under load, at random and at chosen moments, and started again: the
/// front-end that reconnects finds every request completed once, with the right data. `Scripts/kills` does it 300
/// times.
@Suite(.serialized) struct DeathTests {
    @Test(arguments: [KillMedium.direct, .buffered, .loop], [1, 4])
    func `every request is completed once, whenever the worker is killed`(medium: KillMedium, queues: Int) throws {
        try check(KillTrial(medium, queueCount: queues, kills: 16, seed: makeSeed()))
    }

    @Test(arguments: [KillMedium.direct, .loop], [1, 4])
    func `every request on packed rings is completed once, whenever the worker is killed`(
        medium: KillMedium, queues: Int
    ) throws {
        try check(KillTrial(medium, queueCount: queues, rings: .packed, kills: 12, seed: makeSeed()))
    }

    @Test(.enabled(if: WriteThrottle.isAvailable), arguments: [KillMedium.throttled, .throttledFile], [1, 4])
    func `writes that land long after their worker's death do no harm`(medium: KillMedium, queues: Int) throws {
        try check(KillTrial(medium, queueCount: queues, kills: 8, seed: makeSeed()))
    }

    private func check(_ trial: KillTrial) throws {
        let report = try trial.run()
        #expect(report.isClean, "seed \(trial.seed):\n\(report.table)")
        #expect(report.total.kills >= trial.kills)
        #expect(report.total.nothing < report.total.kills, "no kill hit a request in flight:\n\(report.table)")
    }
}
