/// One region of guest memory, as a front-end describes it. Numbers from a peer: nothing here is trusted.
///
/// vhost-user: "Memory region description".
public struct MemoryRegion: Hashable, Sendable {
    /// Guest physical address of the first byte (`guest_phys_addr`).
    public var guestAddress: UInt64
    /// Length in bytes (`memory_size`).
    public var size: UInt64
    /// Where the front-end has it mapped (`userspace_addr`); ring addresses come in this space.
    public var frontendAddress: UInt64
    /// Where it begins in its file, in bytes (`mmap_offset`).
    public var fileOffset: UInt64

    public init(guestAddress: UInt64, size: UInt64, frontendAddress: UInt64, fileOffset: UInt64) {
        self.guestAddress = guestAddress
        self.size = size
        self.frontendAddress = frontendAddress
        self.fileOffset = fileOffset
    }
}
