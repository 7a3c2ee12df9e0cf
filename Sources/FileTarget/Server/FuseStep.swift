/// How far a request has come.
public enum FuseStep: Sendable {
    /// It is answered: so many bytes of the answer were written. 0: it gets no answer (FORGET), or there is no room for
    /// one.
    case done(written: UInt32)
    /// An operation is under way; its completion will come.
    case pending
    /// There is no room in the engine now: go on with it later.
    case stalled
    /// It waits for a lock: go on with it when `ShareSession.lockReleases` has changed, and every 10 ms at least, for
    /// others on the host hold locks, too.
    case waiting
}
