internal import CWire
internal import Glibc
public import Platform

/// One region of guest memory, mapped here.
public final class MappedRegion: Sendable {
    /// What the front-end said of it.
    public let region: MemoryRegion
    private let mapping: Mapping
    /// Bytes from the mapping's first byte to the region's.
    private let lead: Int

    /// Maps a region from the descriptor that came with it.
    ///
    /// - Parameter pinned: keep its pages in memory.
    /// - Throws: `invalidArgument` when the file is shorter than the region says or the numbers overflow; mmap's or
    ///   mlock's error.
    public init(_ region: MemoryRegion, fd: borrowing OwnedFD, pinned: Bool = false) throws(Errno) {
        var status = stat()
        try retryingInterrupts { unsafe fstat(fd.number, &status) }
        let (end, overflow) = region.fileOffset.addingReportingOverflow(region.size)
        guard !overflow, region.size > 0, end <= UInt64(Int64.max), let fileSize = UInt64(exactly: status.st_size),
            end <= fileSize
        else { throw .invalidArgument }
        // hugetlbfs wants offset and length in its pages, which it tells as the block size.
        let block = UInt64(max(4096, status.st_blksize))
        let page = block & (block - 1) == 0 ? block : 4096
        let start = region.fileOffset & ~(page - 1)
        let (rounded, roundingOverflow) = (end - start).addingReportingOverflow(page - 1)
        guard !roundingOverflow, let count = Int(exactly: rounded & ~(page - 1)) else { throw .invalidArgument }
        mapping = try Mapping(sharing: fd, offset: Int64(start), count: count, guarded: true)
        mapping.excludeFromCoreDumps()
        if pinned { try mapping.pin() }
        lead = Int(region.fileOffset - start)
        self.region = region
    }

    /// The region's first byte.
    @safe var base: UnsafeMutableRawPointer { unsafe mapping.base + lead }
}

/// Guest memory as it is between two changes of the memory table: an immutable set of mapped regions that do not
/// overlap.
///
/// Invariants: the table is sorted by guest address; no region wraps around; every pointer handed out lies in a region
/// that stays mapped for as long as this object lives. The bytes belong to the guest, which changes them at any moment:
/// read each value once (`wire_load…`), check the copy, use the copy.
@safe public final class GuestMemory: @unchecked Sendable {
    /// The regions, in guest address order.
    public let regions: [MappedRegion]
    private let table: UnsafeMutableBufferPointer<GuestMemoryView.Entry>

    /// - Parameter regions: they must not overlap and not wrap around; the session has checked it.
    public init(_ regions: [MappedRegion]) {
        self.regions = regions.sorted { $0.region.guestAddress < $1.region.guestAddress }
        unsafe table = .allocate(capacity: max(1, regions.count))
        for (index, mapped) in self.regions.enumerated() {
            let start = mapped.region.guestAddress
            // The last byte may be the last there is.
            precondition(!start.addingReportingOverflow(mapped.region.size - 1).overflow)
            let entry = unsafe GuestMemoryView.Entry(start: start, size: mapped.region.size, host: mapped.base)
            unsafe table.initializeElement(at: index, to: entry)
        }
    }

    deinit {
        unsafe table.deallocate()
    }

    /// What the data path uses; valid for as long as this object lives.
    public var view: GuestMemoryView {
        unsafe GuestMemoryView(entries: UnsafePointer(table.baseAddress!), count: regions.count)
    }

    /// The guest address of an address of the front-end's mapping; nil when it is in no region.
    public func guestAddress(ofFrontend address: UInt64) -> UInt64? {
        for mapped in regions {
            let offset = address &- mapped.region.frontendAddress
            if offset < mapped.region.size { return mapped.region.guestAddress + offset }
        }
        return nil
    }

    /// Finds `count` bytes at an address of the front-end's mapping, all in one region.
    ///
    /// - Parameter alignment: what the address must be a multiple of, 1 or a power of two.
    /// - Returns: nil when no region has them.
    public func resolve(frontendAddress: UInt64, count: Int, alignment: UInt64) -> UnsafeMutableRawPointer? {
        guard let count = UInt64(exactly: count), frontendAddress & (alignment - 1) == 0 else { return nil }
        for mapped in regions {
            let region = mapped.region
            guard frontendAddress >= region.frontendAddress else { continue }
            let offset = frontendAddress - region.frontendAddress
            guard offset < region.size, region.size - offset >= count else { continue }
            let host = unsafe mapped.base + Int(offset)
            return unsafe UInt64(UInt(bitPattern: host)) & (alignment - 1) == 0 ? host : nil
        }
        return nil
    }
}

/// The lookup table of `GuestMemory`, without its reference count.
///
/// Whoever keeps one keeps the `GuestMemory` that it came from.
@safe public struct GuestMemoryView {
    @usableFromInline
    @safe struct Entry {
        @usableFromInline let start: UInt64
        @usableFromInline let size: UInt64
        @usableFromInline let host: UnsafeMutableRawPointer
    }

    @usableFromInline let entries: UnsafePointer<Entry>
    @usableFromInline let count: Int
    /// The entry that answered last: a guest's buffers come mostly from one region.
    @usableFromInline var recent = 0

    init(entries: UnsafePointer<Entry>, count: Int) {
        unsafe self.entries = entries
        self.count = count
    }

    /// Finds the host memory of a guest physical address.
    ///
    /// - Returns: the first byte, and how many bytes lie behind it in the same region (at least 1); nil when the
    ///   address is in no region.
    @inlinable
    public mutating func translate(_ address: UInt64) -> GuestSpan? {
        if recent < count, let span = unsafe span(in: entries[recent], at: address) { return span }
        return search(address)
    }

    @inlinable
    func span(in entry: Entry, at address: UInt64) -> GuestSpan? {
        // Below the start the difference wraps to a huge number, which no size exceeds.
        let offset = address &- entry.start
        guard offset < entry.size else { return nil }
        return unsafe GuestSpan(host: entry.host + Int(truncatingIfNeeded: offset), count: entry.size - offset)
    }

    /// Binary search for the last entry that starts at or below the address.
    @usableFromInline
    mutating func search(_ address: UInt64) -> GuestSpan? {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if unsafe entries[middle].start <= address { low = middle + 1 } else { high = middle }
        }
        guard low > 0, let span = unsafe span(in: entries[low - 1], at: address) else { return nil }
        recent = low - 1
        return span
    }

    /// Finds the guest physical address of host memory that `translate` has found.
    ///
    /// - Returns: nil for other memory.
    public mutating func guestAddress(of host: UnsafeMutableRawPointer) -> UInt64? {
        let place = UInt(bitPattern: host)
        for step in 0..<count {
            let index = (recent + step) % count
            let entry = unsafe entries[index]
            let offset = unsafe place &- UInt(bitPattern: entry.host)
            if UInt64(offset) < entry.size {
                recent = index
                return entry.start + UInt64(offset)
            }
        }
        return nil
    }

    /// Copies `count` bytes out of guest memory, over region borders where needed.
    ///
    /// - Returns: false when part of them is in no region; the target's bytes are then undefined.
    public mutating func copyOut(_ address: UInt64, to target: UnsafeMutableRawPointer, count: Int) -> Bool {
        var done = 0
        while done < count {
            let (next, overflow) = address.addingReportingOverflow(UInt64(done))
            guard !overflow, let span = translate(next) else { return false }
            let part = Int(min(span.count, UInt64(count - done)))
            unsafe (target + done).copyMemory(from: span.host, byteCount: part)
            done += part
        }
        return true
    }
}

/// Host memory that a guest address names.
@safe public struct GuestSpan {
    /// The first byte.
    public let host: UnsafeMutableRawPointer
    /// Bytes from there to the end of the region.
    public let count: UInt64

    @inlinable
    init(host: UnsafeMutableRawPointer, count: UInt64) {
        unsafe self.host = host
        self.count = count
    }
}
