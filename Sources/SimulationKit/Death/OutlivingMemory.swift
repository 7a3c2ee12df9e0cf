internal import CWire
internal import Glibc
internal import Inflight
internal import Platform
internal import Telemetry
internal import Virtio

/// The memory that outlives a worker: guest memory, ring included, behind it the log of the requests in flight, and
/// behind that the records of their operations, and then what workers count, if that is to be kept.
/// One file; the driver and every worker have it mapped, each at addresses of its own.
final class OutlivingMemory {
    /// Guest physical address of the first byte.
    static let guestStart: UInt64 = 0x10_0000
    static let frontendShift: UInt64 = 0x0100_0000_0000

    let file: OwnedFD
    let guestBytes: Int
    private let view: Mapping

    /// Guest memory as workers have it mapped.
    let guestMemory: GuestMemory
    /// The log, as workers have it mapped.
    let region: InflightRegion
    /// What workers count, as they have it mapped; nil: each for itself.
    let statistics: DeviceStatistics?
    private let recordMapping: Mapping

    /// - Parameters:
    ///   - guestBytes: a multiple of 4096.
    ///   - queueSize: descriptors of the ring; the log has an entry for each.
    ///   - keepsStatistics: what workers count outlives them, too.
    init(guestBytes: Int, queueSize: Int, keepsStatistics: Bool = false) throws(Errno) {
        // Enough for either kind of ring.
        let logBytes = 64 + 32 * queueSize
        let recordOffset = guestBytes + (logBytes + 4095) / 4096 * 4096
        let recordBytes = (64 * queueSize + 4095) / 4096 * 4096
        let statisticsOffset = recordOffset + recordBytes
        let statisticsBytes =
            keepsStatistics ? DeviceStatistics.byteCount(queueCount: 1, queueSize: queueSize) : 0
        let count = statisticsOffset + statisticsBytes
        file = try makeMemoryFile(name: "outliving", count: count)
        view = try Mapping(sharing: file, count: count)
        let description = MemoryRegion(
            guestAddress: Self.guestStart, size: UInt64(guestBytes),
            frontendAddress: Self.guestStart + Self.frontendShift, fileOffset: 0)
        guestMemory = GuestMemory([try MappedRegion(description, fd: file)])
        region = try InflightRegion(
            fd: file, offset: UInt64(guestBytes), count: UInt64(logBytes), queueCount: 1, queueSize: queueSize)
        statistics =
            keepsStatistics
            ? try DeviceStatistics(within: file, offset: statisticsOffset, queueCount: 1, queueSize: queueSize) : nil
        recordMapping = try Mapping(sharing: file, offset: Int64(recordOffset), count: recordBytes)
        self.guestBytes = guestBytes
    }

    /// The request records, 64 bytes for each descriptor, as workers have them mapped.
    @unsafe var records: UnsafeMutableRawPointer { unsafe recordMapping.base }

    /// All of it, as the driver has it mapped.
    @unsafe var base: UnsafeMutableRawPointer { unsafe view.base }
    var count: Int { view.count }

    /// A worker's pointer to guest memory.
    ///
    /// - Parameter offset: bytes from the start of guest memory.
    @unsafe func workerAddress(_ offset: Int, _ count: Int) -> UnsafeMutableRawPointer {
        let address = Self.guestStart + Self.frontendShift + UInt64(offset)
        guard let host = unsafe guestMemory.resolve(frontendAddress: address, count: count, alignment: 1) else {
            preconditionFailure("\(offset) is not in guest memory")
        }
        return unsafe host
    }

    // MARK: What the driver does with it; offsets are in bytes from the start of guest memory.

    func load8(_ offset: Int) -> UInt8 { unsafe wire_load8(address(offset, 1)) }
    func load16(_ offset: Int) -> UInt16 { unsafe wire_load16(address(offset, 2)) }
    func load32(_ offset: Int) -> UInt32 { unsafe wire_load32(address(offset, 4)) }
    func load64(_ offset: Int) -> UInt64 { unsafe wire_load64(address(offset, 8)) }
    func store8(_ value: UInt8, _ offset: Int) { unsafe wire_store8(address(offset, 1), value) }
    func store16(_ value: UInt16, _ offset: Int) { unsafe wire_store16(address(offset, 2), value) }
    func store32(_ value: UInt32, _ offset: Int) {
        store16(UInt16(truncatingIfNeeded: value), offset)
        store16(UInt16(truncatingIfNeeded: value >> 16), offset + 2)
    }
    func store64(_ value: UInt64, _ offset: Int) { unsafe wire_store64(address(offset, 8), value) }

    func fill(_ offset: Int, _ count: Int, _ value: UInt8) {
        unsafe address(offset, count).initializeMemory(as: UInt8.self, repeating: value, count: count)
    }

    /// Writes the same 8 bytes again and again.
    func fill(_ offset: Int, _ count: Int, word: UInt64) {
        unsafe address(offset, count).initializeMemory(as: UInt64.self, repeating: word, count: count / 8)
    }

    /// Whether the same 8 bytes lie there again and again.
    func isUniform(_ offset: Int, _ count: Int) -> Bool {
        let start = unsafe address(offset, count)
        return unsafe memcmp(start, start + 8, count - 8) == 0
    }

    /// Writes a descriptor (`virtq_desc`).
    func store(_ descriptor: Descriptor, _ offset: Int) {
        store64(descriptor.address, offset)
        store32(descriptor.length, offset + 8)
        store16(descriptor.flags, offset + 12)
        store16(descriptor.next, offset + 14)
    }

    private func address(_ offset: Int, _ count: Int) -> UnsafeMutableRawPointer {
        precondition(offset >= 0 && offset + count <= guestBytes, "the test reaches outside guest memory")
        return unsafe view.base + offset
    }
}
