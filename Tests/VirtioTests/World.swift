import Glibc
import Platform
import SimulationKit
import Virtio

/// Guest memory with everything that a lookup can go wrong on.
///
/// `a` and `b` follow each other in guest addresses but are two files; then comes a gap; `c` has a size that is no
/// multiple of a page and begins in the middle of a page of its file; `top` ends with the address space.
enum World {
    static let a = SimulatedGuest.Placement(guestAddress: 0x10000, size: 0x4000)
    static let b = SimulatedGuest.Placement(guestAddress: 0x14000, size: 0x4000)
    static let gap: UInt64 = 0x19000
    static let c = SimulatedGuest.Placement(guestAddress: 0x20000, size: 0x1923, fileOffset: 0x800)
    static let top = SimulatedGuest.Placement(guestAddress: 0xffff_ffff_ffff_0000, size: 0x10000)

    static let placements = [c, a, top, b]

    static func makeGuest(queueSize: Int = 8, startingAt start: UInt16 = 0) throws -> SimulatedGuest {
        try SimulatedGuest(placements, queueSize: queueSize, startingAt: start)
    }

    /// Whether a guest address is in a region, the naive way.
    static func holds(_ address: UInt64) -> Bool {
        placements.contains { address >= $0.guestAddress && address - $0.guestAddress < UInt64($0.size) }
    }
}

/// A run of guest addresses.
struct Extent: Hashable {
    var address: UInt64
    var count: UInt64

    init(_ address: UInt64, _ count: UInt64) {
        self.address = address
        self.count = count
    }
}

/// The class of a verdict: what a caller must do.
enum VerdictClass: Hashable {
    case sound, faulty, endless
}

/// What a walk found, with host memory turned back into guest addresses.
struct Walk: Equatable {
    var verdict: VerdictClass
    var fault: ChainFault?
    var readable: [Extent]
    var writable: [Extent]

    /// Where a status byte would go.
    var lastWritableByte: UInt64? { writable.last.map { $0.address + ($0.count - 1) } }
    /// Each byte of the readable part.
    var readableBytes: [UInt64] { readable.flatMap { ($0.address...$0.address + ($0.count - 1)) } }
    /// Each byte of the writable part.
    var writableBytes: [UInt64] { writable.flatMap { ($0.address...$0.address + ($0.count - 1)) } }
}

/// Walks chains of one guest's ring.
@safe final class Walker {
    let guest: SimulatedGuest
    private let storage: UnsafeMutablePointer<iovec>
    private let capacity: Int
    private let ring: SplitVirtqueue
    private var view: GuestMemoryView
    /// Host address of each region's first byte.
    private let hosts: [(host: UInt, region: MemoryRegion)]

    init(_ guest: SimulatedGuest, capacity: Int = 1024, features: UInt64 = RingFeatures.indirect) {
        self.guest = guest
        ring = guest.makeVirtqueue(features: features)
        self.capacity = capacity
        unsafe storage = .allocate(capacity: capacity)
        var view = guest.memory.view
        hosts = guest.memory.regions.map { mapped in
            let span = view.translate(mapped.region.guestAddress)
            return (unsafe UInt(bitPattern: span!.host), mapped.region)
        }
        self.view = view
    }

    deinit {
        unsafe storage.deallocate()
    }

    func walk(from head: UInt16 = 0) -> Walk {
        var segments = unsafe SegmentList(storage: storage, capacity: capacity)
        let verdict = ring.walk(from: head, memory: &view, into: &segments)
        let extents = (0..<segments.readableCount + segments.writableCount).map { extent($0) }
        var walk = Walk(
            verdict: .sound, readable: Array(extents.prefix(segments.readableCount)),
            writable: Array(extents.dropFirst(segments.readableCount)))
        switch verdict {
        case .sound: break
        case .faulty(let fault): (walk.verdict, walk.fault) = (.faulty, fault)
        case .endless(let fault): (walk.verdict, walk.fault) = (.endless, fault)
        }
        if verdict.isSound {
            precondition(segments.readableBytes == walk.readable.reduce(0) { $0 + $1.count })
            precondition(segments.writableBytes == walk.writable.reduce(0) { $0 + $1.count })
        }
        return walk
    }

    private func extent(_ index: Int) -> Extent {
        let vector = unsafe storage[index]
        let host = unsafe UInt(bitPattern: vector.iov_base)
        let count = unsafe UInt64(vector.iov_len)
        for place in hosts where host >= place.host && UInt64(host - place.host) < place.region.size {
            let offset = UInt64(host - place.host)
            precondition(count <= place.region.size - offset, "a segment leaves its region")
            return Extent(place.region.guestAddress + offset, count)
        }
        preconditionFailure("a segment is not in guest memory")
    }
}

extension ChainVerdict {
    var isSound: Bool {
        if case .sound = self { true } else { false }
    }
}

/// Feature bits of the ring.
enum RingFeatures {
    static let indirect: UInt64 = 1 << 28
    static let eventIndex: UInt64 = 1 << 29
}

/// VIRTQ_DESC_F_…
enum DescriptorFlag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
}

extension Descriptor {
    /// A descriptor that the device reads.
    static func readable(_ address: UInt64, _ length: UInt32, next: UInt16? = nil) -> Descriptor {
        Descriptor(address: address, length: length, flags: next == nil ? 0 : DescriptorFlag.next, next: next ?? 0)
    }

    /// A descriptor that the device writes.
    static func writable(_ address: UInt64, _ length: UInt32, next: UInt16? = nil) -> Descriptor {
        Descriptor(
            address: address, length: length, flags: DescriptorFlag.write | (next == nil ? 0 : DescriptorFlag.next),
            next: next ?? 0)
    }

    /// A descriptor that refers to a table.
    static func table(_ address: UInt64, count: Int) -> Descriptor {
        Descriptor(address: address, length: UInt32(16 * count), flags: DescriptorFlag.indirect, next: 0)
    }
}
