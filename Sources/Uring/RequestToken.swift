/// The 64 bits that travel with an operation through an engine: they name one request and nothing else, so that a
/// completion that comes late cannot be taken for that of a newer request on the same head.
public struct RequestToken: Sendable, Equatable {
    public var rawValue: UInt64

    @inlinable
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// - Parameters:
    ///   - sequence: counts the operations of one slot, modulo 2^32.
    ///   - queue: the queue's index.
    ///   - head: the chain's head.
    @inlinable
    public init(sequence: UInt32, queue: UInt16, head: UInt16) {
        rawValue = UInt64(sequence) << 32 | UInt64(queue) << 16 | UInt64(head)
    }

    @inlinable public var sequence: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) }
    @inlinable public var queue: UInt16 { UInt16(truncatingIfNeeded: rawValue >> 16) }
    @inlinable public var head: UInt16 { UInt16(truncatingIfNeeded: rawValue) }
}
