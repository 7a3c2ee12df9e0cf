/// A run of a guest and a disk in which the worker dies: everything in it follows from these numbers.
public struct DeathScenario: Sendable, CustomStringConvertible {
    public var ring = VirtqueueKind.split
    /// Descriptors of the ring, a power of two. Without indirect tables each request has four of them to itself.
    public var ringSize = 16
    /// Requests in all.
    public var requests = 8
    /// The most requests made available at once.
    public var batch = 4
    public var usesEventIndex = false
    public var usesIndirect = false
    /// The guest also sends what makes no sense: unanswerable chains, and heads that the ring does not have.
    public var isFaulty = false
    /// Operations that fit into the queue to the kernel. Less than requests: they stall.
    public var queueDepth = 32
    /// The kernel's ring outlives the worker: operations under way are taken over. Else they are fenced.
    public var isInCustody = false
    /// How many deaths one after the other. With 2, the first successor dies at each of its stores, too.
    public var deaths = 1
    /// From the second death on, this share of the points is tried: one in so many.
    public var thinning = 1
    /// What workers count outlives them, and is checked.
    public var keepsStatistics = false
    public var seed: UInt64 = 1

    public init() {}

    public var description: String {
        "\(ring) ring of \(ringSize), \(requests) requests, \(batch) at once"
            + (usesEventIndex ? ", EVENT_IDX" : "") + (usesIndirect ? ", indirect" : "")
            + (isFaulty ? ", faulty" : "") + (queueDepth < requests ? ", queue of \(queueDepth)" : "")
            + (isInCustody ? ", in custody" : "") + (deaths == 1 ? "" : ", \(deaths) deaths")
            + (thinning == 1 ? "" : " of one point in \(thinning)")
            + ", seed \(seed)"
    }
}

/// What a guest saw that no guest may see.
public struct DeathFinding: Error, Sendable, CustomStringConvertible {
    public var description: String

    init(_ description: String) {
        self.description = description
    }
}
