public import Platform
public import Virtio

/// The memory of a guest that does not exist: regions of shared memory files at chosen guest addresses.
///
/// The layout is fixed when the memory is made, so any thread may use it. What lies at an address is plain bytes,
/// shared with a back-end that may write them at any time. An address outside the regions is our own bug and traps.
public final class GuestMemory: Sendable {
    /// Where a region lies.
    public struct Placement: Hashable, Sendable {
        /// Guest physical address of the first byte.
        public var guestAddress: UInt64
        /// Length in bytes; need not be a multiple of the page (libblkio's are not).
        public var size: Int
        /// Where the region begins in its file; a multiple of the page size.
        public var fileOffset: Int

        public init(guestAddress: UInt64, size: Int, fileOffset: Int = 0) {
            self.guestAddress = guestAddress
            self.size = size
            self.fileOffset = fileOffset
        }
    }

    /// What the front-end calls its own address of a region; a back-end only ever compares such addresses.
    public enum Addressing: Hashable, Sendable {
        /// Where the region is mapped in this process, as QEMU does it.
        case mapped
        /// The guest address itself, as libblkio does it.
        case guest
    }

    /// In the order in which they were given.
    public let regions: [GuestRegion]

    /// Makes the memory; no two placements overlap. Each region has a file of its own.
    ///
    /// - Throws: the system's error, when there is not so much memory.
    public init(_ placements: [Placement], addressing: Addressing = .mapped) throws(SystemError) {
        var regions: [GuestRegion] = []
        for placement in placements {
            let region = try GuestRegion(placement, addressing: addressing)
            precondition(!regions.contains { $0.overlaps(region) }, "memory regions overlap")
            regions.append(region)
        }
        precondition(!regions.isEmpty, "memory needs a region")
        self.regions = regions
    }

    /// Makes memory of one region at guest address 0.
    ///
    /// - Throws: the system's error, when there is not so much memory.
    public convenience init(size: Int, addressing: Addressing = .mapped) throws(SystemError) {
        try self.init([Placement(guestAddress: 0, size: size)], addressing: addressing)
    }

    /// The region that holds all of `[address, address + count)`.
    public func region(holding address: UInt64, count: Int) -> GuestRegion {
        guard let region = regions.first(where: { $0.holds(address, count: count) }) else {
            preconditionFailure("no region holds \(count) bytes at guest address \(address)")
        }
        return region
    }

    /// The front-end's address of a guest address, as SET_VRING_ADDR wants it.
    public func frontendAddress(of address: UInt64) -> UInt64 {
        let region = region(holding: address, count: 1)
        return region.description.frontendAddress &+ (address &- region.description.guestAddress)
    }

    /// Where `count` bytes at a guest address lie in this process; they lie in one region. Valid as long as the memory
    /// is.
    @unsafe public func pointer(to address: UInt64, count: Int) -> UnsafeMutableRawPointer {
        let region = region(holding: address, count: count)
        return unsafe region.base + Int(address &- region.description.guestAddress)
    }

    /// Copies bytes into guest memory; they may cross from one region into the next.
    public func write(_ bytes: [UInt8], at address: UInt64) {
        unsafe forEachPiece(address, bytes.count) { piece, offset in
            unsafe bytes.withUnsafeBytes { source in
                unsafe piece.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[offset..<offset + piece.count]))
            }
        }
    }

    /// Copies bytes out of guest memory; they may cross from one region into the next.
    public func read(_ count: Int, at address: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        unsafe forEachPiece(address, count) { piece, offset in
            unsafe bytes.withUnsafeMutableBytes { target in
                let part = unsafe UnsafeMutableRawBufferPointer(rebasing: target[offset..<offset + piece.count])
                unsafe part.copyMemory(from: UnsafeRawBufferPointer(piece))
            }
        }
        return bytes
    }

    /// Sets `count` bytes to one value; they may cross from one region into the next.
    public func fill(_ byte: UInt8, count: Int, at address: UInt64) {
        unsafe forEachPiece(address, count) { piece, _ in
            unsafe piece.initializeMemory(as: UInt8.self, repeating: byte)
        }
    }

    /// Calls `body` for each part of a range that lies in one region, with the part's offset in the range.
    private func forEachPiece(_ address: UInt64, _ count: Int, _ body: (UnsafeMutableRawBufferPointer, Int) -> Void) {
        var done = 0
        while done < count {
            let start = address &+ UInt64(done)
            let region = region(holding: start, count: 1)
            let inRegion = Int(start &- region.description.guestAddress)
            let length = min(count - done, region.count - inRegion)
            unsafe body(UnsafeMutableRawBufferPointer(start: region.base + inRegion, count: length), done)
            done += length
        }
    }
}

/// One region of guest memory: a shared memory file, mapped here.
@safe public final class GuestRegion: Sendable {
    /// As the back-end is told.
    public let description: MemoryRegion
    /// The file to hand over.
    public let file: OwnedFD
    private let mapping: Mapping

    fileprivate init(_ placement: GuestMemory.Placement, addressing: GuestMemory.Addressing) throws(SystemError) {
        let size = placement.size
        precondition(size > 0 && placement.guestAddress.addingReportingOverflow(UInt64(size)).overflow == false)
        do throws(Errno) {
            file = try makeMemoryFile(name: "guest memory", count: placement.fileOffset + size)
            mapping = try Mapping(sharing: file, offset: Int64(placement.fileOffset), count: size)
        } catch {
            throw SystemError(cannot: "make", "guest memory of \(size) bytes", error)
        }
        let mapped = unsafe UInt64(UInt(bitPattern: mapping.base))
        description = MemoryRegion(
            guestAddress: placement.guestAddress, size: UInt64(size),
            frontendAddress: addressing == .mapped ? mapped : placement.guestAddress,
            fileOffset: UInt64(placement.fileOffset))
    }

    /// Length in bytes.
    var count: Int { mapping.count }

    /// The first byte, in this process.
    @unsafe var base: UnsafeMutableRawPointer { unsafe mapping.base }

    func holds(_ address: UInt64, count: Int) -> Bool {
        let (offset, below) = address.subtractingReportingOverflow(description.guestAddress)
        return !below && offset < description.size && UInt64(count) <= description.size - offset
    }

    func overlaps(_ other: GuestRegion) -> Bool {
        let (mine, theirs) = (description, other.description)
        return mine.guestAddress < theirs.guestAddress + theirs.size
            && theirs.guestAddress < mine.guestAddress + mine.size
    }
}

/// Hands out parts of a range of guest addresses, one after the other; nothing is taken back.
public struct GuestAllocator: Sendable {
    private var next: UInt64
    private let end: UInt64

    /// - Parameter range: guest addresses that nobody else uses.
    public init(_ range: Range<UInt64>) {
        next = range.lowerBound
        end = range.upperBound
    }

    /// All of a region.
    public init(_ region: GuestRegion) {
        let description = region.description
        self.init(description.guestAddress..<description.guestAddress + description.size)
    }

    /// The next `count` bytes. Traps when the range is used up: whoever made it too small is at fault.
    ///
    /// - Parameter alignment: of the guest address, a power of two.
    public mutating func allocate(_ count: Int, alignment: Int = 64) -> UInt64 {
        precondition(alignment > 0 && alignment & (alignment - 1) == 0, "an alignment is a power of two")
        let mask = UInt64(alignment) - 1
        let start = (next + mask) & ~mask
        precondition(start <= end && UInt64(count) <= end - start, "guest memory is used up")
        next = start + UInt64(count)
        return start
    }
}
