internal import CLinux
internal import CWire
public import Platform
internal import Synchronization

/// A device's account of itself, in memory that outlives its workers: who has the device, what its front-end has set
/// up, its kernel rings, and each request's operation under way. A supervisor keeps the file; each worker maps it.
///
/// **Who writes**: the supervisor when it makes the record, then only the worker that holds the sentinel. What each
/// field says at any instant of a writer's death is in docs/crash-points.md.
@safe public final class SessionRecord: Sendable {
    public let geometry: RecordGeometry
    let mapping: Mapping

    /// The lowest version that whoever uses this record must know.
    public let version: UInt32

    /// Makes the record of a device that nobody has served yet.
    ///
    /// - Throws: when there is no memory for it.
    public static func makeFile(_ geometry: RecordGeometry) throws(Errno) -> OwnedFD {
        let fd = try makeMemoryFile(name: "baton-session", count: geometry.byteCount)
        let mapping = try Mapping(sharing: fd, count: geometry.byteCount)
        let header = unsafe mapping.base.assumingMemoryBound(to: wire_record_header.self)
        unsafe header.pointee.version = UInt32(WIRE_RECORD_VERSION)
        unsafe header.pointee.queue_count = UInt32(geometry.queueCount)
        unsafe header.pointee.queue_size = UInt32(geometry.queueSize)
        unsafe header.pointee.ring_count = UInt32(geometry.ringCount)
        unsafe header.pointee.byte_count = UInt64(geometry.byteCount)
        let result = unsafe clinux_sentinel_make(mapping.base + WIRE_RECORD_SENTINEL.asInt)
        guard result == 0 else { throw Errno(rawValue: result) }
        unsafe header.pointee.magic = WIRE_RECORD_MAGIC
        // Whoever maps it would get SIGBUS if a worker could shorten it.
        try sealSize(of: fd)
        return fd
    }

    /// Maps a record and checks it.
    ///
    /// - Parameters:
    ///   - versions: those that the caller can use.
    ///   - expected: what it has to be made for, where that is known: a worker can write another geometry into it.
    /// - Throws: why it is not believed.
    public init(
        _ fd: borrowing OwnedFD, reading versions: ClosedRange<UInt32> = RecordFormat.current.reads,
        expecting expected: RecordGeometry? = nil
    ) throws(SessionRecordError) {
        let size: UInt64
        do throws(Errno) {
            size = try fd.fileSize() ?? 0
        } catch {
            throw .system("cannot see the size of the session record: \(error)")
        }
        guard size >= UInt64(WIRE_RECORD_HEADER_BYTES.asInt) else { throw .tooSmall(size) }
        guard size <= UInt64(RecordGeometry.maximumBytes) else { throw .tooLarge(size) }
        do throws(Errno) {
            mapping = try Mapping(sharing: fd, count: Int(size))
        } catch {
            throw .system("cannot map the session record: \(error)")
        }
        let header = unsafe mapping.base.assumingMemoryBound(to: wire_record_header.self)
        guard unsafe header.pointee.magic == WIRE_RECORD_MAGIC else { throw .notARecord }
        let version = unsafe header.pointee.version
        guard versions.contains(version) else { throw .version(version, readable: versions) }
        let geometry = try unsafe RecordGeometry(
            queueCount: Int(header.pointee.queue_count), queueSize: Int(header.pointee.queue_size),
            ringCount: Int(header.pointee.ring_count))
        guard geometry.byteCount == mapping.count, expected.map({ $0 == geometry }) ?? true else {
            throw .size(UInt64(mapping.count), expected: (expected ?? geometry).byteCount)
        }
        self.geometry = geometry
        self.version = version
    }

    func atomic64(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe (mapping.base + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    func atomic32(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
        unsafe (mapping.base + offset).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// The mutex that the owner's sentinel holds.
    @safe var sentinel: UnsafeMutableRawPointer { unsafe mapping.base + WIRE_RECORD_SENTINEL.asInt }
}

// MARK: - Who has the device

extension SessionRecord {
    /// The worker that has the device; 0: nobody.
    public var owner: UInt64 { unsafe atomic64(WIRE_RECORD_OWNER.asInt).pointee.load(ordering: .acquiring) }

    /// How many workers have had the device.
    public var lastGeneration: UInt64 {
        unsafe atomic64(WIRE_RECORD_LAST_GENERATION.asInt).pointee.load(ordering: .acquiring)
    }

    /// The owner's process, 0 when there is none.
    public var ownerProcess: Int32 {
        Int32(bitPattern: unsafe atomic32(WIRE_RECORD_OWNER_PID.asInt).pointee.load(ordering: .acquiring))
    }

    /// The owner's thread that uses a ring; nil when there is none.
    public func ownerThread(ring: Int) -> Int32? {
        precondition(ring >= 0 && ring < WIRE_RECORD_MAX_RINGS.asInt)
        let offset = WIRE_RECORD_OWNER_THREADS.asInt + 4 * ring
        let thread = Int32(bitPattern: unsafe atomic32(offset).pointee.load(ordering: .acquiring))
        return thread == 0 ? nil : thread
    }

    /// Makes all of it present in memory.
    public func populate() { mapping.populate() }

    /// The owner's threads that use rings.
    public var ownerThreads: [Int32] {
        (0..<WIRE_RECORD_MAX_RINGS.asInt).compactMap { ownerThread(ring: $0) }
    }

    /// Takes the device: two active workers are impossible, because only one compare-and-swap succeeds.
    ///
    /// The order of stores: `last_generation`, then the account of this worker's life, then `owner`. A worker that dies
    /// between them has used up a number.
    ///
    /// - Parameter predecessor: the owner as seen after its death; 0 for none.
    /// - Returns: the number of this worker.
    /// - Throws: `ownedBy` when another was faster.
    public func claim(from predecessor: UInt64, process: Int32) throws(SessionRecordError) -> UInt64 {
        let generation = unsafe atomic64(WIRE_RECORD_LAST_GENERATION.asInt).pointee
            .wrappingAdd(1, ordering: .acquiringAndReleasing).newValue
        beginLife(generation, process: process)
        let outcome = unsafe atomic64(WIRE_RECORD_OWNER.asInt).pointee
            .compareExchange(expected: predecessor, desired: generation, ordering: .acquiringAndReleasing)
        guard outcome.exchanged else { throw .ownedBy(outcome.original) }
        for index in 0..<WIRE_RECORD_MAX_RINGS.asInt {
            noteThread(0, ring: index)
            clearLoop(index)
        }
        unsafe atomic32(WIRE_RECORD_OWNER_PID.asInt).pointee.store(UInt32(bitPattern: process), ordering: .releasing)
        return generation
    }

    /// The version that the last owner writes; 0 when nobody has had the device.
    public var writtenVersion: UInt32 {
        unsafe atomic32(WIRE_RECORD_WRITTEN_VERSION.asInt).pointee.load(ordering: .acquiring)
    }

    /// Puts what this build has added to the record in order; to be called once by whoever has claimed the device,
    /// before it changes anything else.
    ///
    /// The order of stores: the added fields, then `written_version`. A death between them leaves the version of the
    /// worker before, so that the successor believes those fields only if that one has kept them.
    ///
    /// - Returns: what the format says of it, for the log.
    public func takeUp(_ format: RecordFormat) -> String? {
        let note = format.claimed(self, writtenVersion)
        unsafe atomic32(WIRE_RECORD_WRITTEN_VERSION.asInt).pointee.store(format.writes, ordering: .releasing)
        return note
    }

    /// Room for fields that later versions add: 64 bytes, 8-aligned, valid while this lives.
    @safe public var additions: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            start: mapping.base + WIRE_RECORD_ADDITIONS.asInt, count: WIRE_RECORD_ADDITIONS_BYTES.asInt)
    }

    /// The owner's thread that uses a ring; before it does so for the first time.
    public func noteThread(_ thread: Int32, ring: Int) {
        precondition(ring >= 0 && ring < WIRE_RECORD_MAX_RINGS.asInt)
        let offset = WIRE_RECORD_OWNER_THREADS.asInt + 4 * ring
        unsafe atomic32(offset).pointee.store(UInt32(bitPattern: thread), ordering: .releasing)
    }

    /// Gives the device up, for a successor: the owner uses no ring any more and takes no request.
    ///
    /// - Parameter generation: the caller's.
    public func release(_ generation: UInt64) {
        let outcome = unsafe atomic64(WIRE_RECORD_OWNER.asInt).pointee
            .compareExchange(expected: generation, desired: 0, ordering: .acquiringAndReleasing)
        precondition(outcome.exchanged, "only the owner gives the device up")
    }
}

// MARK: - What the front-end has set up

extension SessionRecord {
    /// The most bytes that `commit` takes.
    public static var maximumControlBytes: Int { RecordGeometry.controlBytes - 8 }

    /// Replaces what was committed before, at once: the area that does not count is written, then one store makes it
    /// count. A death before that store leaves the old, after it the new.
    ///
    /// - Parameter bytes: at most `maximumControlBytes`.
    public func commit(_ bytes: [UInt8]) {
        precondition(bytes.count <= Self.maximumControlBytes, "the control area is too small")
        let next =
            unsafe atomic64(WIRE_RECORD_CONTROL_SEQUENCE.asInt).pointee.load(ordering: .relaxed) &+ 1
        let area = unsafe mapping.base + geometry.controlOffset(Int(next & 1))
        unsafe (area + 8).copyMemory(from: bytes, byteCount: bytes.count)
        unsafe wire_store64(area, UInt64(bytes.count))
        unsafe atomic64(WIRE_RECORD_CONTROL_SEQUENCE.asInt).pointee.store(next, ordering: .releasing)
    }

    /// Changes with each commit.
    public var commitCount: UInt64 {
        unsafe atomic64(WIRE_RECORD_CONTROL_SEQUENCE.asInt).pointee.load(ordering: .acquiring)
    }

    /// What was committed last; empty when nothing was.
    ///
    /// - Throws: `control` when its length is impossible.
    public func committed() throws(SessionRecordError) -> [UInt8] {
        let sequence = unsafe atomic64(WIRE_RECORD_CONTROL_SEQUENCE.asInt).pointee.load(ordering: .acquiring)
        if sequence == 0 { return [] }
        let area = unsafe mapping.base + geometry.controlOffset(Int(sequence & 1))
        let count = unsafe wire_load64(area)
        guard count <= UInt64(Self.maximumControlBytes) else { throw .control("claims \(count) bytes") }
        return unsafe Array(UnsafeRawBufferPointer(start: area + 8, count: Int(count)))
    }
}

// MARK: - Kernel rings and requests

extension SessionRecord {
    /// What io_uring_setup said of a ring: whoever maps it needs that.
    public func setRingParameters(_ bytes: [UInt8], ring: Int) {
        precondition(ring >= 0 && ring < geometry.ringCount && bytes.count == WIRE_RECORD_RING_PARAMETERS.asInt)
        let place = unsafe mapping.base + WIRE_RECORD_RINGS.asInt + ring * WIRE_RECORD_RING_STRIDE.asInt
        unsafe place.copyMemory(from: bytes, byteCount: bytes.count)
    }

    /// The parameters of a ring, as they were set.
    public func ringParameters(_ ring: Int) -> [UInt8] {
        precondition(ring >= 0 && ring < geometry.ringCount)
        let place = unsafe mapping.base + WIRE_RECORD_RINGS.asInt + ring * WIRE_RECORD_RING_STRIDE.asInt
        return unsafe Array(UnsafeRawBufferPointer(start: place, count: WIRE_RECORD_RING_PARAMETERS.asInt))
    }

    /// The request records of a queue: `geometry.queueSize` of 64 bytes, one for each slot. Valid while this lives.
    @safe public func requestRecords(queue: Int) -> UnsafeMutableRawPointer {
        precondition(queue >= 0 && queue < geometry.queueCount)
        return unsafe mapping.base + geometry.requestsOffset(queue: queue)
    }
}
