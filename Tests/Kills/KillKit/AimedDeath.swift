public import FrontendKit
internal import Glibc
public import Platform

/// A SIGKILL at a chosen moment of a worker that serves a queue, whoever has started it.
public struct AimedDeath: ~Copyable {
    private let view: any QueueView
    private let queue: Int
    private let inflight: InflightMapping

    /// - Parameter inflight: the queue's log.
    public init(_ endpoint: QueueEndpoint, queue: Int, inflight: consuming InflightMapping) {
        view =
            endpoint.isPacked
            ? PackedQueueView(endpoint, queue: queue, inflight: inflight)
            : SplitQueueView(endpoint, queue: queue, inflight: inflight)
        self.queue = queue
        self.inflight = inflight
    }

    /// Brings the worker's loop to the moment, and kills it: wherever it is, when the moment does not come.
    ///
    /// - Parameters:
    ///   - aim: not one of those in recovery.
    ///   - process: the worker.
    ///   - loops: how many it has.
    ///   - before: called just before the kill.
    /// - Returns: whether the moment came.
    /// - Throws: when the worker cannot be traced; it lives then.
    public func strike(
        _ aim: KillAim, process: Int32, loops: Int, before: () -> Void
    ) throws(SystemError) -> Bool {
        let shot = try KillShot(aim, view, loop: queue % loops, ofProcess: process)
        let isReached = shot.reach()
        before()
        _ = shot.kill()
        return isReached
    }
}
