/// What a worker is told of its disk's size, and what its answer is about.
public struct ResizeOrder: Hashable, Sendable {
    /// What the disk is to have; the image has at least so many.
    public let bytes: UInt64
    /// It may be less than it was.
    public let isShrinking: Bool
    /// The image has its last size already. An answer to an order without it says nothing of what a successor has seen.
    public let isLast: Bool

    public init(bytes: UInt64, isShrinking: Bool, isLast: Bool) {
        self.bytes = bytes
        self.isShrinking = isShrinking
        self.isLast = isLast
    }
}

extension CustodyMessage {
    /// `resize`.
    public init(_ order: ResizeOrder) {
        self.init(.resize, order.key, value: order.bytes)
    }

    /// `resized`.
    ///
    /// - Parameter refusal: why the disk keeps its size; empty when it has the new one.
    public init(answering order: ResizeOrder, refusal: String) {
        self.init(.resized, order.key, value: order.bytes, text: refusal)
    }

    /// Of `resize` and `resized`.
    public var resizeOrder: ResizeOrder {
        ResizeOrder(bytes: value, isShrinking: key.index & 1 != 0, isLast: key.index & 2 != 0)
    }
}

extension ResizeOrder {
    fileprivate var key: CustodyKey {
        CustodyKey(CustodyRole(rawValue: 0), (isShrinking ? 1 : 0) | (isLast ? 2 : 0))
    }
}
