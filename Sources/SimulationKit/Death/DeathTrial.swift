public import Platform
internal import Telemetry

/// Plays a scenario, and plays it again from every state in which death can leave it.
///
/// The first run is watched: each store to memory that outlives the worker, and each call on the I/O seam, is a point
/// at which the worker could have died. Then, point by point: memory and storage are taken back to it, the kernel ends
/// what the worker had submitted, and a successor takes over and serves until all is done. Where the scenario asks for
/// more deaths, the successor is watched in turn.
///
/// What must hold at the end of each run: every request was returned exactly once, with the right data, in a legal
/// order; nothing was executed for a request that had been returned; nothing waits for ever; the log is empty.
public final class DeathTrial {
    /// What the runs came to.
    public struct Report: Sendable {
        /// Points at which a worker died.
        public var deaths = 0
        /// Stores seen in runs that were watched.
        public var stores = 0
        /// Of those, to the log.
        public var logPoints = 0
        /// What was wrong first, after which death; nil when nothing was.
        public var finding: String?
    }

    private let scenario: DeathScenario
    private let stage: DeathStage
    private let watches: [StoreWatch]
    private var report = Report()
    private var path: [String] = []

    /// Points of one run.
    private static let capacity = 4096

    /// - Throws: when there is no memory.
    public init(_ scenario: DeathScenario) throws(Errno) {
        self.scenario = scenario
        stage = try DeathStage(scenario)
        var watches: [StoreWatch] = []
        for _ in 0..<scenario.deaths { watches.append(try StoreWatch(stage.memory, capacity: Self.capacity)) }
        self.watches = watches
    }

    /// Plays until something is wrong, or to the end. Once.
    public func run() -> Report {
        do {
            try live(0)
        } catch {
            let story = path.isEmpty ? "without any death" : path.joined(separator: ", then ")
            report.finding = "\(error) — \(story)"
        }
        return report
    }

    /// Has a worker live to the end, then die at each point of its life.
    ///
    /// - Parameter age: deaths before.
    private func live(_ age: Int) throws {
        let watch = age < watches.count ? watches[age] : nil
        try play(watch)
        guard let watch else { return }
        guard watch.lost == 0 else { throw DeathFinding("\(watch.lost) points found no room") }
        report.stores += watch.stores
        let worlds = stage.worlds
        let step = age == 0 ? 1 : scenario.thinning
        var random = SeededRandom(seed: scenario.seed &+ UInt64(report.deaths))
        for index in stride(from: random.below(step), to: watch.count, by: step) {
            let point = watch[index]
            report.deaths += 1
            if (point.lastStore ?? 0) >= stage.memory.guestBytes { report.logPoints += 1 }
            path.append("death after \(point.stores) stores, the last one \(place(point.lastStore))")
            watch.restore(index)
            stage.outlive(worlds[point.world], seed: random.next())
            try live(age + 1)
            path.removeLast()
        }
    }

    private func play(_ watch: StoreWatch?) throws {
        stage.open(watch)
        do {
            defer { stage.close() }
            try scenario.ring.live(on: stage)
        }
        try stage.surroundings.guest.checkEnd(stage.storage.contents)
        try checkStatistics(deaths: UInt64(path.count))
        let leftOver = try scenario.ring.leftOver(stage)
        guard leftOver.isEmpty else { throw DeathFinding("\(leftOver) are left in the log") }
    }

    /// No request is counted twice, and each death has lost one at most; of the latencies, those of one batch.
    private func checkStatistics(deaths: UInt64) throws(DeathFinding) {
        guard let statistics = stage.memory.statistics else { return }
        let reading = statistics.read(at: .max / 4)
        let returned = stage.surroundings.guest.returned
        var missing: UInt64 = 0
        for kind in RequestKind.allCases where kind != .writeZeroesUnmapping {
            var counted = reading.counts[kind].operations
            if kind == .writeZeroes { counted += reading.counts[.writeZeroesUnmapping].operations }
            let done = returned[kind] ?? 0
            guard counted <= done else { throw DeathFinding("\(counted) requests were counted as \(kind), of \(done)") }
            missing += done - counted
            guard let timed = reading.latencies[kind]?.counts.reduce(0, +) else { continue }
            guard timed <= counted, counted - timed <= deaths * UInt64(ModelGuest.most) else {
                throw DeathFinding("\(timed) requests were timed as \(kind), of \(counted)")
            }
        }
        guard missing <= deaths else { throw DeathFinding("\(missing) requests were not counted") }
        guard reading.inFlight == 0 else { throw DeathFinding("\(reading.inFlight) requests seem to be in flight") }
    }

    private func place(_ offset: Int?) -> String {
        guard let offset else { return "none" }
        let areas = stage.surroundings.guest.ring.areas
        if offset >= stage.memory.guestBytes { return "to the log's byte \(offset - stage.memory.guestBytes)" }
        if offset >= ModelGuest.firstSlot { return "to a buffer" }
        if offset >= areas.device { return "to byte \(offset - areas.device) of the device's area" }
        return "to byte \(offset)"
    }
}
