internal import TestSupport

/// At which moment a worker is killed. The stores are those of `SplitInflightLog` and `PackedInflightLog`, in their
/// order; a moment that only one kind of ring has says so.
public enum KillAim: String, CaseIterable, Sendable {
    /// At a random moment, without a look.
    case blind
    /// At a random moment: stopped, looked at, killed.
    case looked
    /// `counter` of a request has been written.
    case counted
    /// `inflight = 1` has been written.
    case logged
    /// Packed: both free heads have been written, with which the request is in flight.
    case committed
    /// Requests are in the submission queue; io_uring_enter has not begun.
    case queued
    /// io_uring_enter has just taken requests.
    case submitted
    /// Packed: `free_head` has been written, with a request of the batch in front of the free entries.
    case linked
    /// Packed: the used position has been written, the old one is behind.
    case positioned
    /// Split: a used element and `last_batch_head` have been written; used.idx has not. Packed: the length of the first
    /// used descriptor of a batch has been written.
    case returned
    /// Packed: another used descriptor of the batch than the first has been marked, the first has not.
    case marked
    /// used.idx has been published, or the first used descriptor marked; the log has not been touched since.
    case published
    /// `inflight = 0` has been written for some of the batch.
    case clearing
    /// Packed: both free heads have been written; the old used position is behind still.
    case freed
    /// The log's `used_idx`, or both positions, have been written; the interrupt has not been sent.
    case cleared
    /// The successor of one that was killed at `published` has written an `inflight = 0`.
    case recoveryClearing = "recovery: clearing"
    /// It has written the log's `used_idx`, or both positions.
    case recoveryCleared = "recovery: cleared"
    /// It is about to submit what it carries out again.
    case recoveryQueued = "recovery: queued"
    /// It has just submitted some of that.
    case recoverySubmitted = "recovery: submitted"
    /// Packed: the successor of one that was killed at `marked` has taken a mark back.
    case recoveryUnmarking = "recovery: unmarking"

    /// Whether it hits the successor of a worker that was killed first.
    public var isInRecovery: Bool { rawValue.hasPrefix("recovery") }

    /// Where the worker before was killed, of an aim in recovery.
    var predecessor: KillAim { self == .recoveryUnmarking ? .marked : .published }

    /// Whether the debug registers find the moment.
    var needsWatch: Bool {
        switch self {
        case .blind, .looked, .queued, .submitted, .recoveryQueued, .recoverySubmitted: false
        default: true
        }
    }

    private var isOfPackedRings: Bool {
        switch self {
        case .committed, .linked, .positioned, .marked, .freed, .recoveryUnmarking: true
        default: false
        }
    }

    /// Those that are neither random nor in recovery.
    static func aimed(_ rings: RingKind) -> [KillAim] {
        allCases.filter {
            $0 != .blind && $0 != .looked && !$0.isInRecovery && (rings == .packed || !$0.isOfPackedRings)
        }
    }

    static func inRecovery(_ rings: RingKind) -> [KillAim] {
        allCases.filter { $0.isInRecovery && (rings == .packed || !$0.isOfPackedRings) }
    }
}
