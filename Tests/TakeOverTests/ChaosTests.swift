internal import ChaosKit
internal import TestSupport
internal import Testing

/// Real supervisor, real workers, real SIGKILLs; the front-end connects once.
@Suite(.serialized)
struct ChaosTests {
    @Test("a guest sees neither kills nor upgrades", arguments: RingKind.allCases, [1, 4])
    func survives(_ rings: RingKind, queues: Int) throws {
        var options = ChaosOptions(seed: makeSeed())
        options.isPacked = rings == .packed
        options.queueCount = queues
        options.kills = 20
        options.upgrades = 3
        let report = try ChaosTrial(options).run()
        #expect(report.isClean, "seed \(options.seed), \(rings), \(queues) queues: \(report)")
        #expect(report.kills == options.kills && report.upgrades == options.upgrades)
    }

    @Test("an interrupt that a dead worker owed comes from its successor", arguments: RingKind.allCases)
    func interrupts(_ rings: RingKind) throws {
        var options = ChaosOptions(seed: makeSeed())
        options.isPacked = rings == .packed
        options.usesInterrupts = true
        options.kills = 10
        let report = try ChaosTrial(options).run()
        #expect(report.isClean, "seed \(options.seed), \(rings): \(report)")
    }
}
