public import Platform
internal import Synchronization

/// The bitmap in which every write to guest memory is marked while a guest migrates: bit `page % 8` of byte `page / 8`,
/// for pages of 4096 bytes. The front-end takes marks out while we set them, so each is one atomic operation.
///
/// A page is marked **after** it has been written: a mark that is taken out before the write would be lost.
///
/// vhost-user: "Migration".
public final class DirtyLog: Sendable {
    private let mapping: Mapping
    /// Bytes from the mapping's first byte to the log's.
    private let lead: Int
    private let byteCount: UInt64

    /// - Parameters:
    ///   - offset: where it begins in its file.
    ///   - count: its length in bytes.
    /// - Throws: `invalidArgument` when the file is shorter than that; mmap's error.
    public init(fd: borrowing OwnedFD, offset: UInt64, count: UInt64) throws(Errno) {
        let (end, overflow) = offset.addingReportingOverflow(count)
        guard !overflow, count > 0, end <= UInt64(Int64.max), let size = try fd.fileSize(), end <= size else {
            throw .invalidArgument
        }
        lead = Int(offset % 4096)
        mapping = try Mapping(
            sharing: fd, offset: Int64(offset) - Int64(lead), count: lead + Int(count), guarded: true)
        byteCount = count
    }

    /// Marks the pages of `count` bytes from a guest address on. Pages that the log has no bit for are left out.
    public func mark(_ address: UInt64, count: UInt64) {
        guard count > 0 else { return }
        let (sum, overflow) = address.addingReportingOverflow(count - 1)
        let lastPage = (overflow ? .max : sum) / Self.pageBytes
        var page = address / Self.pageBytes
        while page <= lastPage, page / 8 < byteCount {
            let last = min(lastPage, page | 7)
            let bits = (UInt8.max << UInt8(page & 7)) & (UInt8.max >> UInt8(7 - (last & 7)))
            // Within the mapping: `page / 8` is below the log's length.
            let byte = unsafe (mapping.base + lead + Int(page / 8)).assumingMemoryBound(to: Atomic<UInt8>.self)
            _ = unsafe byte.pointee.bitwiseOr(bits, ordering: .releasing)
            page = last + 1
        }
    }

    /// What one bit stands for.
    public static let pageBytes: UInt64 = 4096
}
