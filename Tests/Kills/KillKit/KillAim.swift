/// At which moment a worker is killed. The stores are those of `SplitInflightLog`, in their order.
public enum KillAim: String, CaseIterable, Sendable {
    /// At a random moment, without a look.
    case blind
    /// At a random moment: stopped, looked at, killed.
    case looked
    /// `counter` of a request has been written.
    case counted
    /// `inflight = 1` has been written.
    case logged
    /// Requests are in the submission queue; io_uring_enter has not begun.
    case queued
    /// io_uring_enter has just taken requests.
    case submitted
    /// A used element and `last_batch_head` have been written; used.idx has not.
    case returned
    /// used.idx has been published; the log has not been touched since.
    case published
    /// `inflight = 0` has been written for some of the batch.
    case clearing
    /// The log's `used_idx` has been written; the interrupt has not been sent.
    case cleared
    /// The successor of one that was killed at `published` has written an `inflight = 0`.
    case recoveryClearing = "recovery: clearing"
    /// It has written the log's `used_idx`.
    case recoveryCleared = "recovery: cleared"
    /// It is about to submit what it carries out again.
    case recoveryQueued = "recovery: queued"
    /// It has just submitted some of that.
    case recoverySubmitted = "recovery: submitted"

    /// Whether it hits the successor of a worker that was killed first.
    public var isInRecovery: Bool { rawValue.hasPrefix("recovery") }

    /// Whether the debug registers find the moment.
    var needsWatch: Bool {
        switch self {
        case .counted, .logged, .returned, .published, .clearing, .cleared, .recoveryClearing, .recoveryCleared: true
        case .blind, .looked, .queued, .submitted, .recoveryQueued, .recoverySubmitted: false
        }
    }

    /// Those that are neither random nor in recovery.
    static let aimed = allCases.filter { $0 != .blind && $0 != .looked && !$0.isInRecovery }
    static let inRecovery = allCases.filter(\.isInRecovery)
}
