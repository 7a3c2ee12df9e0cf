import SimulationKit
import TestSupport
import Testing

/// A worker dies after every single store to memory that outlives it, and after every call on the I/O seam.
@Suite(.enabled(if: StoreWatch.isSupported)) struct DeathAtEveryStoreTests {
    @Test func `try`() throws {
        var scenario = DeathScenario()
        scenario.seed = makeSeed()
        let report = try DeathTrial(scenario).run()
        print(report, scenario)
        #expect(report.finding == nil)
    }
}
