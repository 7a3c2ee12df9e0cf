import SimulationKit
import TestSupport
import Testing

/// A worker dies after every single store to memory that outlives it, and after every call on the I/O seam; a successor
/// takes over each time. `DeathTrial` says what must hold.
@Suite(.enabled(if: StoreWatch.isSupported)) struct DeathAtEveryStoreTests {
    /// What a ring can be like.
    struct Shape: CustomTestStringConvertible {
        var ring: VirtqueueKind
        var usesEventIndex: Bool
        var usesIndirect: Bool

        static let all = VirtqueueKind.allCases.flatMap { ring in
            [false, true].flatMap { eventIndex in
                [false, true].map { Shape(ring: ring, usesEventIndex: eventIndex, usesIndirect: $0) }
            }
        }

        func scenario(seed: UInt64) -> DeathScenario {
            var scenario = DeathScenario()
            scenario.ring = ring
            scenario.usesEventIndex = usesEventIndex
            scenario.usesIndirect = usesIndirect
            scenario.seed = seed
            return scenario
        }

        var testDescription: String { scenario(seed: 0).description }
    }

    /// Plays a scenario to its end.
    @discardableResult
    private func survive(_ scenario: DeathScenario) throws -> DeathTrial.Report {
        let report = try DeathTrial(scenario).run()
        if let finding = report.finding { Issue.record("\(scenario): \(finding)") }
        return report
    }

    @Test(arguments: Shape.all, [1, 4, 16])
    func `no death loses, repeats or reorders a request`(shape: Shape, batch: Int) throws {
        let seed = makeSeed()
        print("deaths: \(shape.testDescription), \(batch) at once: seed \(seed)")
        var random = SeededRandom(seed: seed)
        var scenario = shape.scenario(seed: random.next())
        scenario.ringSize = batch == 16 ? 64 : 16
        scenario.batch = batch
        scenario.requests = 16
        let report = try survive(scenario)
        // Each request makes at least four stores to the log: none was overlooked.
        #expect(report.finding != nil || report.deaths > 4 * scenario.requests)
    }

    @Test(arguments: Shape.all)
    func `nor does one while requests wait for room`(shape: Shape) throws {
        let seed = makeSeed()
        print("deaths while requests wait: \(shape.testDescription): seed \(seed)")
        var scenario = shape.scenario(seed: seed)
        scenario.ringSize = 64
        scenario.batch = 16
        scenario.requests = 16
        scenario.queueDepth = 2
        try survive(scenario)
    }

    @Test(arguments: Shape.all)
    func `nor does one amid requests that make no sense`(shape: Shape) throws {
        let seed = makeSeed()
        print("deaths amid nonsense: \(shape.testDescription): seed \(seed)")
        var random = SeededRandom(seed: seed)
        for _ in 0..<3 {
            var scenario = shape.scenario(seed: random.next())
            scenario.requests = 12
            scenario.isFaulty = true
            try survive(scenario)
        }
    }

    @Test(arguments: Shape.all.filter { $0.usesEventIndex == $0.usesIndirect })
    func `nor does a second death, at any store of the successor`(shape: Shape) throws {
        let seed = makeSeed()
        print("second deaths: \(shape.testDescription): seed \(seed)")
        var scenario = shape.scenario(seed: seed)
        scenario.ringSize = 8
        scenario.requests = 3
        scenario.deaths = 2
        try survive(scenario)
    }

    @Test(arguments: VirtqueueKind.allCases, [1, 2])
    func `nor does one count a request twice, or lose more than one`(ring: VirtqueueKind, deaths: Int) throws {
        let seed = makeSeed()
        print("deaths and counts: \(ring), \(deaths) in a row: seed \(seed)")
        var scenario = Shape(ring: ring, usesEventIndex: true, usesIndirect: false).scenario(seed: seed)
        scenario.keepsStatistics = true
        scenario.isFaulty = true
        scenario.ringSize = deaths == 1 ? 64 : 16
        scenario.batch = deaths == 1 ? 16 : 4
        scenario.requests = deaths == 1 ? 24 : 6
        scenario.deaths = deaths
        scenario.thinning = 8
        try survive(scenario)
    }

    @Test(arguments: VirtqueueKind.allCases)
    func `nor do three deaths in a row`(ring: VirtqueueKind) throws {
        let seed = makeSeed()
        print("three deaths: \(ring): seed \(seed)")
        var scenario = Shape(ring: ring, usesEventIndex: true, usesIndirect: false).scenario(seed: seed)
        scenario.ringSize = 8
        scenario.requests = 4
        scenario.deaths = 3
        scenario.thinning = 32
        try survive(scenario)
    }

    @Test(arguments: Shape.all, [1, 4, 16])
    func `nor does one of a worker whose operations the next one takes over`(shape: Shape, batch: Int) throws {
        let seed = makeSeed()
        print("deaths in custody: \(shape.testDescription), \(batch) at once: seed \(seed)")
        var scenario = shape.scenario(seed: seed)
        scenario.isInCustody = true
        scenario.ringSize = batch == 16 ? 64 : 16
        scenario.batch = batch
        scenario.requests = 16
        let report = try survive(scenario)
        #expect(report.finding != nil || report.deaths > 8 * scenario.requests)
    }

    @Test(arguments: Shape.all)
    func `nor does one in custody while requests wait for room`(shape: Shape) throws {
        let seed = makeSeed()
        print("deaths in custody while requests wait: \(shape.testDescription): seed \(seed)")
        var scenario = shape.scenario(seed: seed)
        scenario.isInCustody = true
        scenario.ringSize = 64
        scenario.batch = 16
        scenario.requests = 16
        scenario.queueDepth = 2
        try survive(scenario)
    }

    @Test(arguments: Shape.all.filter { $0.usesEventIndex == $0.usesIndirect })
    func `nor does a second death in custody, at any store of the take-over`(shape: Shape) throws {
        let seed = makeSeed()
        print("second deaths in custody: \(shape.testDescription): seed \(seed)")
        var random = SeededRandom(seed: seed)
        // What goes wrong here takes two rare events in a row.
        for _ in 0..<4 {
            var scenario = shape.scenario(seed: random.next())
            scenario.isInCustody = true
            scenario.ringSize = 8
            scenario.requests = 4
            scenario.deaths = 2
            try survive(scenario)
        }
    }

    @Test(arguments: VirtqueueKind.allCases)
    func `nor do four deaths in custody, over which operations go on`(ring: VirtqueueKind) throws {
        let seed = makeSeed()
        print("four deaths in custody: \(ring): seed \(seed)")
        var scenario = Shape(ring: ring, usesEventIndex: true, usesIndirect: false).scenario(seed: seed)
        scenario.isInCustody = true
        scenario.ringSize = 8
        scenario.requests = 4
        scenario.deaths = 4
        scenario.thinning = 48
        try survive(scenario)
    }
}
