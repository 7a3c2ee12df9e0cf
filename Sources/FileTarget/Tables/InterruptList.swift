internal import Synchronization

/// Requests whose driver waits for them no more (INTERRUPT): the last 64 that were named. A request that waits looks
/// whether it is among them.
final class InterruptList: Sendable {
    private let uniques = Mutex<InlineArray<64, UInt64>>(InlineArray(repeating: 0))
    private let next = Atomic<Int>(0)

    func add(_ unique: UInt64) {
        guard unique != 0 else { return }
        let index = next.add(1, ordering: .relaxed).newValue & 63
        uniques.withLock { $0[index] = unique }
    }

    /// Whether a request was named; it is so once.
    func take(_ unique: UInt64) -> Bool {
        uniques.withLock { uniques in
            for index in 0..<64 where uniques[index] == unique && unique != 0 {
                uniques[index] = 0
                return true
            }
            return false
        }
    }
}
