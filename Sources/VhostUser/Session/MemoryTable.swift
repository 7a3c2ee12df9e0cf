public import Virtio

/// The memory regions that a front-end has announced, and the rules they obey: each has bytes, none goes beyond the end
/// of an address space, no two share an address of the guest or of the front-end.
///
/// Sizes and addresses need not be multiples of a page: libblkio announces regions of 0x7620 bytes.
public struct MemoryTable: Hashable, Sendable {
    /// In the order in which they came.
    public private(set) var regions: [MemoryRegion] = []
    /// How many there can be.
    public let maximumCount: Int

    /// What a vring's parts are aligned to. A front-end's mapping and ours both begin at page boundaries, so a region
    /// has its file offset and its address in step; one that lies about it would misalign every ring within.
    static let alignment: UInt64 = 16
    /// The most bytes in all regions: an eighth of a process's address space. While one table takes the place of
    /// another, both are mapped.
    static let maximumBytes: UInt64 = 1 << 44

    public init(maximumCount: Int) {
        self.maximumCount = maximumCount
    }

    /// Replaces all regions, or none if one breaks a rule.
    mutating func replace(with regions: [MemoryRegion]) throws(RequestRefusal.Reason) {
        var table = MemoryTable(maximumCount: maximumCount)
        guard regions.count <= maximumCount else { throw .tooManyRegions(regions.count, maximum: maximumCount) }
        for region in regions { try table.add(region) }
        self = table
    }

    /// Adds one region if it breaks no rule.
    mutating func add(_ region: MemoryRegion) throws(RequestRefusal.Reason) {
        guard region.size > 0 else { throw .emptyRegion(region) }
        guard region.isBounded else { throw .endlessRegion(region) }
        guard (region.fileOffset ^ region.frontendAddress) % Self.alignment == 0 else {
            throw .misalignedRegion(region)
        }
        if let other = regions.first(where: { $0.overlaps(region) }) { throw .overlappingRegions(region, other) }
        guard regions.count < maximumCount else { throw .tooManyRegions(regions.count + 1, maximum: maximumCount) }
        guard region.size <= Self.maximumBytes - byteCount else { throw .tooMuchMemory(maximum: Self.maximumBytes) }
        regions.append(region)
    }

    /// Bytes in all regions, at most `maximumBytes`.
    private var byteCount: UInt64 { regions.reduce(0) { $0 + $1.size } }

    /// Bytes of a dirty log with a bit for each page of 4096 bytes up to the last guest address.
    var dirtyLogBytes: UInt64 {
        let last = regions.map { $0.guestAddress + ($0.size - 1) }.max()
        return last.map { $0 / 4096 / 8 + 1 } ?? 0
    }

    /// Takes the region away that has these addresses and this size.
    mutating func remove(_ region: MemoryRegion) throws(RequestRefusal.Reason) {
        let place = regions.firstIndex {
            $0.guestAddress == region.guestAddress && $0.frontendAddress == region.frontendAddress
                && $0.size == region.size
        }
        guard let place else { throw .noSuchRegion(region) }
        regions.remove(at: place)
    }

    /// True when all `count` bytes from a front-end address on lie in one region.
    func contains(frontendAddress: UInt64, count: UInt64) -> Bool {
        regions.contains { region in
            guard frontendAddress >= region.frontendAddress, count <= region.size else { return false }
            return frontendAddress - region.frontendAddress <= region.size - count
        }
    }
}

extension MemoryRegion {
    /// True when no end of it is beyond what its number can say; file offsets end at 2^63 - 1.
    fileprivate var isBounded: Bool {
        let (fileEnd, overflow) = fileOffset.addingReportingOverflow(size)
        return !overflow && fileEnd <= UInt64(Int64.max)
            && !guestAddress.addingReportingOverflow(size - 1).overflow
            && !frontendAddress.addingReportingOverflow(size - 1).overflow
    }

    /// True when they share an address of the guest or of the front-end. Both are bounded.
    fileprivate func overlaps(_ other: MemoryRegion) -> Bool {
        func meet(_ first: UInt64, _ second: UInt64) -> Bool {
            first < second ? second - first < size : first - second < other.size
        }
        return meet(guestAddress, other.guestAddress) || meet(frontendAddress, other.frontendAddress)
    }
}
