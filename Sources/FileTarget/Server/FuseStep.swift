/// How far a request has come.
public enum FuseStep: Sendable {
    /// It is answered: so many bytes of the answer were written. 0: it gets no answer (FORGET), or there is no room for
    /// one.
    case done(written: UInt32)
    /// An operation is under way; its completion will come.
    case pending
    /// An operation is to be handed to the kernel at once, as whom the thread works now: `FuseServer.submitAtOnce`.
    case submitting
    /// The engine does not take such an operation: the request is to be read again, and carried out without it.
    case again
    /// There is no room in the engine now: go on with it later.
    case stalled
    /// It waits for a lock: go on with it when `ShareSession.lockReleases` has changed, and every 10 ms at least, for
    /// others on the host hold locks, too.
    case waiting
}
