/// Where the three parts of a split virtqueue lie in guest memory. Virtio 1.2, section 2.7.
public struct SplitRing: Hashable, Sendable {
    /// The largest ring there is, in descriptors.
    public static let maximumSize = 32768

    /// Number of descriptors, 1 to 32768. The specification wants a power of two; some front-ends do not care.
    public let size: Int
    /// Guest address of the descriptor table, a multiple of 16.
    public let descriptorTable: UInt64
    /// Guest address of the available ring (driver area), a multiple of 2.
    public let availableRing: UInt64
    /// Guest address of the used ring (device area), a multiple of 4.
    public let usedRing: UInt64

    public init(size: Int, descriptorTable: UInt64, availableRing: UInt64, usedRing: UInt64) {
        precondition((1...Self.maximumSize).contains(size), "a ring has 1 to \(Self.maximumSize) descriptors")
        precondition(
            descriptorTable % 16 == 0 && availableRing % 2 == 0 && usedRing % 4 == 0, "ring parts are not aligned")
        self.size = size
        self.descriptorTable = descriptorTable
        self.availableRing = availableRing
        self.usedRing = usedRing
    }

    /// Takes room for a ring, each part on cache lines of its own so that driver and device do not disturb each other.
    public init(size: Int, in allocator: inout GuestAllocator) {
        self.init(
            size: size,
            descriptorTable: allocator.allocate(Self.descriptorTableCount(size)),
            availableRing: allocator.allocate(Self.availableRingCount(size)),
            usedRing: allocator.allocate(Self.usedRingCount(size)))
    }

    /// Bytes of a descriptor table.
    public static func descriptorTableCount(_ size: Int) -> Int { 16 * size }
    /// Bytes of an available ring, `used_event` included.
    public static func availableRingCount(_ size: Int) -> Int { 6 + 2 * size }
    /// Bytes of a used ring, `avail_event` included.
    public static func usedRingCount(_ size: Int) -> Int { 6 + 8 * size }
}
