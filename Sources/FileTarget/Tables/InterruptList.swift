internal import CWire
internal import Synchronization

/// Requests whose driver waits for them no more (INTERRUPT): the last 32 that were named. A request that waits looks
/// whether it is among them, sooner or later: so they are in the share's tables, where a successor finds them.
///
/// Each is one store. INTERRUPT is answered after it: a worker that dies before leaves the request in the ring, to be
/// carried out again.
@safe final class InterruptList: @unchecked Sendable {
    private let uniques: UnsafeMutableRawPointer
    private let next = Mutex(0)

    private static let count = Int(WIRE_SHARE_INTERRUPTS)

    /// - Parameter uniques: WIRE_SHARE_INTERRUPTS numbers, 0 where there is none, which outlive this.
    init(_ uniques: UnsafeMutableRawPointer) { unsafe self.uniques = uniques }

    private func place(_ index: Int) -> UnsafeMutableRawPointer { unsafe uniques + 8 * index }

    func add(_ unique: UInt64) {
        guard unique != 0 else { return }
        next.withLock { next in
            next = (next + 1) % Self.count
            unsafe wire_store64(place(next), unique)
        }
    }

    /// Whether a request was named. It stays so: a worker may die before it has answered it, and the driver does not
    /// say it again. No number comes twice.
    func contains(_ unique: UInt64) -> Bool {
        guard unique != 0 else { return false }
        return next.withLock { _ in
            for index in 0..<Self.count where unsafe wire_load64(place(index)) == unique { return true }
            return false
        }
    }

    /// The driver has gone: the next one numbers anew.
    func removeAll() {
        next.withLock { _ in
            for index in 0..<Self.count { unsafe wire_store64(place(index), 0) }
        }
    }
}
