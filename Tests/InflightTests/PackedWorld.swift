import CWire
import Glibc
import Inflight
import Platform
import Virtio

/// A packed ring, its log, and a driver of few lines: as much as survives a worker.
final class PackedWorld {
    /// Where everything lies in guest memory.
    static let eventsAddress = 0x8000
    static let deviceEventsAddress = 0x8040
    static let tableAddress: UInt64 = 0x9000
    static let bufferAddress: UInt64 = 0x10000
    static let memoryBytes = 0x20000

    let size: Int
    let features: UInt64
    let region: InflightRegion?
    /// The log as others see it.
    let log: Mapping
    let guest: Mapping
    let memory: GuestMemory
    /// Where the driver puts the next chain, and where it looks for the next used descriptor.
    var available = RingPosition(index: 0, wrap: true)
    var used = RingPosition(index: 0, wrap: true)
    /// Descriptors of each id.
    var lengths: [UInt16: UInt16] = [:]

    init(size: Int = 8, features: UInt64 = 1 << 28, isKept: Bool = true) throws {
        self.size = size
        self.features = features | RingLayout.packedFeature
        let logFile = try InflightRegion.makeFile(queueCount: 1, queueSize: size, packed: true)
        let count = InflightRegion.byteCount(queueCount: 1, queueSize: size, packed: true)
        region =
            isKept
            ? try InflightRegion(fd: logFile, offset: 0, count: UInt64(count), queueCount: 1, queueSize: size) : nil
        log = try Mapping(sharing: logFile, count: count)
        let file = try makeMemoryFile(name: "guest", count: Self.memoryBytes)
        guest = try Mapping(sharing: file, count: Self.memoryBytes)
        let description = MemoryRegion(
            guestAddress: 0, size: UInt64(Self.memoryBytes), frontendAddress: 0, fileOffset: 0)
        memory = GuestMemory([try MappedRegion(description, fd: file)])
    }

    // MARK: The device

    func areas() -> RingAreas {
        unsafe RingAreas(
            size: UInt16(size), features: features, descriptors: guest.base,
            driver: guest.base + Self.eventsAddress, device: guest.base + Self.deviceEventsAddress)
    }

    /// The next worker on this ring.
    func successor(base: UInt32 = 0x8000_8000) throws -> (device: Device, plan: RecoveryPlan) {
        var plan = RecoveryPlan()
        let ring = try PackedRequestRing(areas(), base: base, region: region, queue: 0, plan: &plan)
        return (Device(ring, memory), plan)
    }

    @safe final class Device {
        private var ring: PackedRequestRing
        private let memory: GuestMemory
        private let segments: UnsafeMutablePointer<iovec>

        init(_ ring: consuming PackedRequestRing, _ memory: GuestMemory) {
            self.ring = ring
            self.memory = memory
            unsafe segments = .allocate(capacity: maximumChainLength)
        }

        deinit { unsafe segments.deallocate() }

        var availableCount: UInt16? { ring.availableCount() }
        var base: UInt32 { ring.base }
        func takeOnly() -> UInt16? { ring.take() }
        func giveBack(_ slot: UInt16, written: UInt32) { ring.giveBack(slot, written: written) }
        func publish() -> Bool { ring.publish() }
        func enableKicks() -> Bool { ring.enableKicks() }
        func disableKicks() { ring.disableKicks() }

        /// Takes and records the next request.
        func take() -> UInt16? {
            guard let slot = ring.take() else { return nil }
            ring.record(slot)
            return slot
        }

        /// Bytes that the device reads and writes, and what is wrong.
        func walk(_ slot: UInt16) -> (readable: UInt64, writable: UInt64, verdict: String) {
            var list = unsafe SegmentList(storage: segments, capacity: maximumChainLength)
            var view = memory.view
            let verdict = ring.walk(from: slot, memory: &view, into: &list)
            return (list.readableBytes, list.writableBytes, "\(verdict)")
        }

        func finish(_ slots: [UInt16]) {
            for slot in slots { ring.giveBack(slot, written: 1) }
            _ = ring.publish()
        }
    }

    // MARK: The driver

    /// Writes a descriptor as it is, wherever.
    func put(_ index: Int, address: UInt64, length: UInt32, id: UInt16, flags: UInt16) {
        unsafe wire_store64(guest.base + 16 * index, address)
        unsafe wire_store64(
            guest.base + 16 * index + 8, UInt64(length) | UInt64(id) << 32 | UInt64(flags) << 48)
    }

    /// Makes a chain available, one descriptor for each length.
    func send(_ id: UInt16, lengths list: [UInt32] = [16]) {
        for (place, length) in list.enumerated() {
            let isLast = place == list.count - 1
            // Only the last one's id counts.
            send(id: isLast ? id : 0xeeee, length: length, flags: isLast ? 2 : 1)
        }
        lengths[id] = UInt16(list.count)
    }

    /// Makes one descriptor available.
    func send(id: UInt16, address: UInt64 = bufferAddress, length: UInt32, flags: UInt16) {
        let mark = UInt16(available.wrap ? WIRE_VIRTQ_DESC_F_AVAIL : WIRE_VIRTQ_DESC_F_USED)
        put(Int(available.index), address: address, length: length, id: id, flags: flags | mark)
        available.advance(by: 1, size: UInt16(size))
        lengths[id] = 1
    }

    /// What has come back, in order.
    func takeUsed() -> [UInt16] {
        var ids: [UInt16] = []
        while unsafe PackedVirtqueue.isUsed(at: used, descriptors: guest.base, size: UInt16(size)) {
            let word = unsafe wire_load64(guest.base + 16 * Int(used.index) + 8)
            let id = UInt16(truncatingIfNeeded: word >> 32)
            ids.append(id)
            guard let count = lengths.removeValue(forKey: id) else { return ids + [0xffff] }
            used.advance(by: count, size: UInt16(size))
        }
        return ids
    }

    // MARK: The log

    func isInFlight(_ entry: UInt16) -> Bool { unsafe wire_load8(log.base + 32 + 32 * Int(entry)) != 0 }
    func header16(_ offset: Int) -> UInt16 { unsafe wire_load16(log.base + offset) }
    func setHeader16(_ offset: Int, _ value: UInt16) { unsafe wire_store16(log.base + offset, value) }
    func setEntry16(_ entry: Int, _ offset: Int, _ value: UInt16) {
        unsafe wire_store16(log.base + 32 + 32 * entry + offset, value)
    }
}
