internal import ChaosKit
internal import TestSupport
internal import Testing

/// Real supervisor, real workers, real SIGKILLs; the front-end connects once.
@Suite(.serialized)
struct ChaosTests {
    /// Requests past the page cache are with the kernel for longer, and many need bounce buffers, which all queues of a
    /// loop share.
    @Test("a guest sees neither kills nor upgrades", arguments: RingKind.allCases, [false, true])
    func survives(_ rings: RingKind, direct: Bool) throws {
        var options = ChaosOptions(seed: makeSeed())
        options.isPacked = rings == .packed
        options.isDirect = direct
        options.queueCount = 4
        options.kills = 20
        options.upgrades = 3
        let report = try ChaosTrial(options).run()
        #expect(report.isClean, "seed \(options.seed), \(rings), direct \(direct): \(report)")
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
