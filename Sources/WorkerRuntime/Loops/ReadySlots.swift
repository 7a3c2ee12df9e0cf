internal import Platform

/// Memory for requests that was made before its queue is attached: a standby does so while nobody waits.
///
/// Belongs to its loop.
final class ReadySlots<Slots: ~Copyable>: @unchecked Sendable {
    private final class Shelf {
        var slots: Slots?
    }

    private var shelves: [Shelf]
    private let make: (Int) throws(Errno) -> Slots
    private let count: (borrowing Slots) -> Int

    /// - Parameters:
    ///   - queues: indices are below it.
    ///   - make: so many slots.
    ///   - count: how many there are.
    init(queues: Int, make: @escaping (Int) throws(Errno) -> Slots, count: @escaping (borrowing Slots) -> Int) {
        shelves = (0..<queues).map { _ in Shelf() }
        self.make = make
        self.count = count
    }

    /// Without memory nothing is ready, and whoever attaches the queue says so.
    func prepare(_ slots: Int, queue: Int) {
        guard shelves.indices.contains(queue) else { return }
        shelves[queue].slots = nil
        shelves[queue].slots = try? make(slots)
    }

    /// - Returns: nil when there are none, or another number.
    func take(_ slots: Int, queue: Int) -> Slots? {
        guard shelves.indices.contains(queue), let ready = shelves[queue].slots.take(), count(ready) == slots else {
            return nil
        }
        return consume ready
    }
}
