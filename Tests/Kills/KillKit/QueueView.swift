/// What a queue's ring and log say of its requests, read in the front-end's own mapping.
protocol QueueView {
    /// What a worker that has just been killed has left.
    var hit: KillHit { get }
    /// Whether the log says so of an entry.
    func isInFlight(_ head: UInt16) -> Bool
    /// Where the stores that are aimed at will be, told of a loop that stands still.
    func stores(for aim: KillAim) -> WatchedStores
    /// Whether the loop, which has stopped right behind one of these stores, is where the aim says.
    ///
    /// - Parameter flagsChanged: one of the watched entries has become in flight, or is not any more.
    func isAt(_ aim: KillAim, flagsChanged: Bool) -> Bool
}

/// A place that both sides map.
enum StorePlace {
    /// Bytes from the start of guest memory.
    case guest(Int)
    /// Bytes from the start of the inflight file.
    case log(Int)
}

/// Stores that the processor's debug registers are to find.
struct WatchedStores {
    /// At most four: so many registers there are.
    var places: [StorePlace]
    /// Bytes at each of them.
    var length: Int
    /// Entries whose change matters.
    var heads: [UInt16] = []
}
