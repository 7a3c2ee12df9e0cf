internal import CWire
internal import Glibc
public import Platform

/// What a device's workers count, in a file in memory that outlives them: a supervisor makes it and reads it, the
/// worker that has the device writes it, and its successor goes on with the sums that it finds.
///
/// **Who writes**: each queue's block, the thread that serves the queue (`QueueMeter`); each loop's, its thread
/// (`FaultMeter`); the rest of the header, the session's thread. Every store is plain and of one whole field, so
/// whoever reads at the same time sees each count as it was at some moment, and two counts perhaps as of two moments.
@safe public final class DeviceStatistics: Sendable {
    let mapping: Mapping
    /// Queues that are counted.
    public let queueCount: Int
    /// The most slots of a queue.
    public let queueSize: Int

    /// Statistics of a worker on its own: they go with it.
    ///
    /// - Throws: when there is no memory.
    public init(queueCount: Int, queueSize: Int) throws(Errno) {
        mapping = try Mapping(anonymous: Self.byteCount(queueCount: queueCount, queueSize: queueSize))
        self.queueCount = queueCount
        self.queueSize = queueSize
    }

    /// Statistics that lie in a file with something else, where all is 0 before the first use.
    ///
    /// - Parameters:
    ///   - offset: a multiple of the page size; from there on the file has at least `byteCount` bytes.
    /// - Throws: mmap's error.
    public init(
        within fd: borrowing OwnedFD, offset: Int, queueCount: Int, queueSize: Int
    ) throws(Errno) {
        mapping = try Mapping(
            sharing: fd, offset: Int64(offset), count: Self.byteCount(queueCount: queueCount, queueSize: queueSize))
        mapping.populate()
        self.queueCount = queueCount
        self.queueSize = queueSize
    }

    /// Makes the file of a device that nobody has served yet. Nobody can make it shorter or longer.
    ///
    /// - Throws: when there is no memory.
    public static func makeFile(queueCount: Int, queueSize: Int) throws(Errno) -> OwnedFD {
        let count = byteCount(queueCount: queueCount, queueSize: queueSize)
        let fd = try makeMemoryFile(name: "baton-statistics", count: count)
        let mapping = try Mapping(sharing: fd, count: count)
        let header = unsafe mapping.base.assumingMemoryBound(to: wire_statistics_header.self)
        unsafe header.pointee.magic = UInt64(WIRE_STATISTICS_MAGIC)
        unsafe header.pointee.version = UInt32(WIRE_STATISTICS_VERSION)
        unsafe header.pointee.queue_count = UInt32(queueCount)
        unsafe header.pointee.queue_size = UInt32(queueSize)
        unsafe header.pointee.byte_count = UInt64(count)
        // Whoever maps it would get SIGBUS if a worker could shorten it.
        try sealSize(of: fd)
        return fd
    }

    /// Maps a file and checks it.
    ///
    /// - Parameter writable: false for who only reads.
    /// - Throws: `invalidArgument` when it is none, or of another version.
    public init(_ fd: borrowing OwnedFD, writable: Bool) throws(Errno) {
        guard let size = try fd.fileSize(), size >= UInt64(Self.headerBytes), size < 1 << 32 else {
            throw .invalidArgument
        }
        let mapping = try Mapping(sharing: fd, count: Int(size), writable: writable)
        let header = unsafe mapping.base.assumingMemoryBound(to: wire_statistics_header.self).pointee
        let (queues, slots) = (Int(header.queue_count), Int(header.queue_size))
        guard header.magic == UInt64(WIRE_STATISTICS_MAGIC), header.version == UInt32(WIRE_STATISTICS_VERSION),
            (1...256).contains(queues), (1...32768).contains(slots),
            Self.byteCount(queueCount: queues, queueSize: slots) == mapping.count
        else { throw .invalidArgument }
        queueCount = queues
        queueSize = slots
        self.mapping = mapping
    }

    private static var headerBytes: Int { Int(WIRE_STATISTICS_HEADER_BYTES) }
    static var queueBytes: Int { Int(WIRE_STATISTICS_QUEUE_BYTES) }

    private static func stride(_ queueSize: Int) -> Int { (queueBytes + 8 * queueSize + 63) / 64 * 64 }

    /// Bytes of the statistics of a device.
    public static func byteCount(queueCount: Int, queueSize: Int) -> Int {
        (headerBytes + queueCount * stride(queueSize) + 4095) / 4096 * 4096
    }

    /// The block of a queue. Valid while this lives.
    func block(of queue: Int) -> UnsafeMutableRawPointer {
        precondition(queue >= 0 && queue < queueCount)
        return unsafe mapping.base + Self.headerBytes + queue * Self.stride(queueSize)
    }

    /// The block of a loop. Valid while this lives.
    func loopBlock(_ loop: Int) -> UnsafeMutableRawPointer {
        precondition(loop >= 0 && loop < Int(WIRE_STATISTICS_MAX_LOOPS))
        return unsafe mapping.base + Int(WIRE_STATISTICS_LOOPS) + loop * MemoryLayout<wire_statistics_loop>.size
    }

    /// A field of the header.
    func load(_ offset: Int) -> UInt64 { unsafe wire_load64(mapping.base + offset) }
    func store(_ value: UInt64, _ offset: Int) { unsafe wire_store64(mapping.base + offset, value) }
}

// MARK: - A device that changes hands

extension DeviceStatistics {
    /// Why a device changed hands.
    public enum GapCause: UInt64, Sendable, CaseIterable {
        case death = 1
        case handOver = 2
    }

    /// The worker that has the device takes no more requests: another will have it.
    public func noteStop(at now: UInt64) { store(now, Int(WIRE_STATISTICS_STOPPED_AT)) }

    /// A worker serves the device from `now` on.
    ///
    /// The order of stores: the length, then the cause, then the number, then the note of the stop goes. A death
    /// between them counts the same gap again, as a longer one.
    ///
    /// - Parameter deathKnownSince: when it learnt that the worker before had died; nil: none has.
    public func noteServing(deathKnownSince: UInt64?, at now: UInt64) {
        let stopped = load(Int(WIRE_STATISTICS_STOPPED_AT))
        guard let since = deathKnownSince ?? (stopped > 0 ? stopped : nil) else { return }
        let cause = deathKnownSince == nil ? GapCause.handOver : .death
        store(now > since ? now - since : 0, Int(WIRE_STATISTICS_GAP))
        store(cause.rawValue, Int(WIRE_STATISTICS_GAP_CAUSE))
        let number = Int(WIRE_STATISTICS_GAPS) + 8 * Int(cause.rawValue - 1)
        store(load(number) &+ 1, number)
        store(0, Int(WIRE_STATISTICS_STOPPED_AT))
    }

    /// How many nodes the driver of a share knows, and how many files and directories it has open. Cheap when they are
    /// what they were.
    public func noteTables(nodes: UInt64, openFiles: UInt64) {
        if load(Int(WIRE_STATISTICS_NODES)) != nodes { store(nodes, Int(WIRE_STATISTICS_NODES)) }
        if load(Int(WIRE_STATISTICS_OPEN_FILES)) != openFiles { store(openFiles, Int(WIRE_STATISTICS_OPEN_FILES)) }
    }

    /// Nothing of a queue is in flight: its driver has gone.
    public func forgetRequests(queue: Int) {
        let block = unsafe block(of: queue)
        unsafe wire_store64(block + Int(WIRE_STATISTICS_HELD), 0)
        let words = unsafe block + Self.queueBytes
        for slot in 0..<queueSize where unsafe wire_load64(words + 8 * slot) != 0 {
            unsafe wire_store64(words + 8 * slot, 0)
        }
    }
}
