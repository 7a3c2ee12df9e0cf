internal import CWire
public import Platform

/// The file that holds the logs of all queues, mapped. It outlives the worker: the front-end, or whoever has custody,
/// keeps it.
///
/// vhost-user: "Inflight I/O tracking".
public final class InflightRegion: Sendable {
    /// How many queues it covers.
    public let queueCount: Int
    /// The most entries a queue's log can have.
    public let queueSize: Int
    /// Bytes from one queue's log to the next. It is in no message: the region's length tells it.
    let stride: Int
    private let mapping: Mapping
    /// Bytes from the mapping's first byte to the region's.
    private let lead: Int

    /// Bytes of a region.
    ///
    /// - Parameter packed: for packed rings.
    public static func byteCount(queueCount: Int, queueSize: Int, packed: Bool = false) -> Int {
        queueCount
            * (packed ? PackedInflightLog.stride(queueSize: queueSize) : SplitInflightLog.stride(queueSize: queueSize))
    }

    /// The most that a peer may ask for: 256 packed queues of 32768 descriptors.
    public static let maximumByteCount = 256 * (32 + 32 * 32768 + 64)

    /// Makes a region that holds nothing yet, and its file.
    ///
    /// - Throws: when there is no memory for it.
    public static func makeFile(queueCount: Int, queueSize: Int, packed: Bool = false) throws(Errno) -> OwnedFD {
        try makeMemoryFile(
            name: "baton-inflight", count: byteCount(queueCount: queueCount, queueSize: queueSize, packed: packed))
    }

    /// Maps a region that somebody made, this program or another.
    ///
    /// - Parameters:
    ///   - offset: where it begins in its file.
    ///   - count: its length in bytes.
    /// - Throws: `invalidArgument` when it is too short for what it should hold, with split rings at least, or its file
    ///   is shorter than it; mmap's error. The log of a packed ring is twice as long: it looks for itself.
    public init(
        fd: borrowing OwnedFD, offset: UInt64, count: UInt64, queueCount: Int, queueSize: Int
    ) throws(Errno) {
        guard queueCount > 0, queueSize > 0, queueSize <= 32768, count <= UInt64(Self.maximumByteCount) else {
            throw .invalidArgument
        }
        let (end, overflow) = offset.addingReportingOverflow(count)
        guard !overflow, let size = try fd.fileSize(), end <= size else { throw .invalidArgument }
        // Others round differently; what all have in common is that the queues share the region evenly.
        stride = Int(count) / queueCount & ~7
        guard stride >= SplitInflightLog.byteCount(queueSize: queueSize), offset % 8 == 0 else {
            throw .invalidArgument
        }
        lead = Int(offset % 4096)
        mapping = try Mapping(
            sharing: fd, offset: Int64(offset) - Int64(lead), count: lead + Int(count), guarded: true)
        mapping.populate()
        self.queueCount = queueCount
        self.queueSize = queueSize
    }

    /// Takes a queue's log back to what it was before anybody used it.
    public func clear(queue: Int) {
        // The version is what tells whether there is a log: see `recover`.
        unsafe wire_store16(log(of: queue) + 8, 0)
    }

    /// The first byte of a queue's log.
    @safe func log(of queue: Int) -> UnsafeMutableRawPointer {
        precondition(queue >= 0 && queue < queueCount)
        return unsafe mapping.base + (lead + queue * stride)
    }
}
