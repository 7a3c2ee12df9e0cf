/// How many requests a kill has hit, by how far they were.
public struct KillHit: Sendable {
    /// Taken and not returned: in the kernel or not.
    public var taken = 0
    /// Of those: the kernel had it. Known after a look only.
    public var running: Int?
    /// Of those: the kernel was done with it, the worker had not yet seen that.
    public var done: Int?
    /// Of those: in the log only.
    public var logged: Int? {
        guard let running, let done else { return nil }
        return max(0, taken - running - done)
    }
    /// Used element written, not published.
    public var returned = 0
    /// Published, not struck off.
    public var published = 0

    public var isAny: Bool { taken + returned + published > 0 }

    mutating func add(_ other: KillHit) {
        taken += other.taken
        returned += other.returned
        published += other.published
    }
}
