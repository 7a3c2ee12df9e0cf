/// Another size for a disk.
public struct ResizeParameters: Codable, Hashable, Sendable {
    public var name: String
    /// A multiple of 512; absent: what the storage has by now.
    public var bytes: UInt64?
    /// It may be less than it was.
    public var shrink: Bool

    public init(name: String, bytes: UInt64?, shrink: Bool) {
        self.name = name
        self.bytes = bytes
        self.shrink = shrink
    }
}

/// What became of it.
public struct ResizeResult: Codable, Hashable, Sendable {
    public var bytes: UInt64
    /// The image has the size, and the disk will when a worker has it.
    public var isWaiting: Bool

    public init(bytes: UInt64, isWaiting: Bool) {
        self.bytes = bytes
        self.isWaiting = isWaiting
    }
}
