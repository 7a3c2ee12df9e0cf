public import Uring

/// The engine of a simulated storage: stands where a ring would.
public struct SimulatedEngine: ~Copyable, IOEngine {
    private let storage: SimulatedStorage

    public init(_ storage: SimulatedStorage) {
        self.storage = storage
    }

    public mutating func enqueue(_ operation: IOOperation, token: UInt64) -> Bool {
        storage.enqueue(operation, token: token)
    }

    public mutating func submit() { storage.submit() }
    public mutating func runDeferredWork() {}
    public mutating func nextCompletion() -> IOCompletion? { storage.nextCompletion() }
    public var queuedCount: Int { storage.queuedCount }
    /// Nobody sleeps on a simulation.
    public var pollDescriptor: Int32? { nil }
}
