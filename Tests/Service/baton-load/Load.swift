internal import FrontendKit
internal import Glibc
internal import Platform
internal import Synchronization
internal import TestSupport

/// What a script steers.
protocol Load: Sendable {
    /// Requests that have come back so far.
    var completed: Int { get }
    var hasEnded: Bool { get }
    /// Requests that a back-end has taken and not given back, as far as the front-end can tell.
    var inFlight: Int { get }
    /// The longest time without a completion since this was last asked, in nanoseconds.
    func takeLongestPause() -> UInt64
    /// Ends it and waits for what it came to.
    func end() throws -> LoadOutcome
}

struct LoadOutcome {
    let requests: Int
    let errors: Int
    let isClean: Bool
    let text: String
}

/// One front-end of a disk under a verified load, until it is ended.
final class DiskLoad: Load {
    private let monitor = LoadMonitor()
    private let result = Mutex<Result<LoadReport, LoadError>?>(nil)
    private let inflight: InflightCount

    /// What is in flight after the queues' log, which the front-end keeps and outlives every back-end.
    private final class InflightCount: @unchecked Sendable {
        private let mapping: InflightMapping
        private let places: [Int]

        init(_ mapping: consuming InflightMapping, queues: Int, size: Int) {
            // vhost-user, split rings: a header of 16 bytes, then 16 bytes an entry, whose first says it.
            places = (0..<queues).flatMap { queue in
                (0..<size).map { mapping.offset(ofQueue: queue) + 16 + $0 * 16 }
            }
            self.mapping = mapping
        }

        var count: Int {
            places.count { unsafe mapping.base.load(fromByteOffset: $0, as: UInt8.self) != 0 }
        }
    }

    /// Connects and starts.
    ///
    /// - Parameter queues: of 256 descriptors.
    init(_ socket: String, queues: Int, seed: UInt64) throws {
        var options = VerifiedLoad.Options(seed: seed, sectors: 0..<4096)
        options.overlapping = true
        options.depth = 16
        options.requestLimit = nil
        options.timeLimit = 900_000
        options.stallLimit = 60_000
        options.initialContent = .unknown
        var rig = try Rig(connectingTo: socket, queueCount: queues, memorySize: 64 << 20)
        options.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
        guard let mapping = try rig.frontend.mapInflight() else {
            throw SystemError(cannot: "watch", "the requests in flight", nil, advice: "The device keeps no log")
        }
        inflight = InflightCount(mapping, queues: queues, size: 256)
        let load = VerifiedLoad(
            rig.endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: options, in: &rig.allocator)
        let connection = Connection(rig)
        let thread = try JoinableThread(name: "load") { [self] in
            do throws(LoadError) {
                let report = try load.run(monitor: monitor)
                result.withLock { $0 = .success(report) }
            } catch {
                result.withLock { $0 = .failure(error) }
            }
            withExtendedLifetime(connection) {}
        }
        thread.detach()
    }

    /// Keeps the connection and the guest's memory as long as the load runs.
    private final class Connection: @unchecked Sendable {
        let rig: Rig
        init(_ rig: consuming Rig) { self.rig = rig }
    }

    /// Requests that have come back so far.
    var completed: Int { monitor.completedRequests }
    var hasEnded: Bool { result.withLock { $0 != nil } }
    /// Requests that a back-end has taken and not given back.
    var inFlight: Int { inflight.count }
    /// The longest time without a completion since this was last asked, in nanoseconds.
    func takeLongestPause() -> UInt64 { monitor.takeLongestPause() }

    func end() throws -> LoadOutcome {
        monitor.requestStop()
        while true {
            if let result = result.withLock({ $0 }) {
                let report = try result.get()
                return LoadOutcome(
                    requests: report.requests, errors: report.errors + report.mismatches, isClean: report.isClean,
                    text: "\(report)")
            }
            pause(milliseconds: 5)
        }
    }
}
