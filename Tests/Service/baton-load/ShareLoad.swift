internal import FrontendKit
internal import Glibc
internal import Platform
internal import Synchronization

/// Many clients of a share under a verified load, until it is ended.
final class ShareLoad: Load {
    private let monitor = LoadMonitor()
    private let result = Mutex<Result<FileLoadReport, any Error>?>(nil)

    /// Starts; it connects in a thread of its own.
    init(_ socket: String, queues: Int, seed: UInt64) throws(Errno) {
        var options = VerifiedFileLoad.Options(seed: seed)
        options.queueCount = queues
        options.requestLimit = nil
        options.stallLimit = 60_000
        let thread = try JoinableThread(name: "load") { [self, options] in
            let found = Result {
                var load = try VerifiedFileLoad(connectingTo: socket, options, monitor: monitor)
                let report = try load.run()
                try load.checkConnection()
                return report
            }
            result.withLock { $0 = found }
        }
        thread.detach()
    }

    var completed: Int { monitor.completedRequests }
    var hasEnded: Bool { result.withLock { $0 != nil } }
    var inFlight: Int { 0 }
    func takeLongestPause() -> UInt64 { monitor.takeLongestPause() }

    func end() throws -> LoadOutcome {
        monitor.requestStop()
        while true {
            if let result = result.withLock({ $0 }) {
                let report = try result.get()
                return LoadOutcome(
                    requests: report.total, errors: report.mismatches, isClean: report.isClean, text: "\(report)")
            }
            pause(milliseconds: 5)
        }
    }
}
