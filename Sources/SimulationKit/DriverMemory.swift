internal import Glibc
internal import Platform
internal import Virtio

/// Guest memory as the driver maps it: other host addresses than the device's, the same bytes.
final class DriverMemory {
    private let regions: [DriverRegion]
    private let frontendShift: UInt64

    init(_ placements: [SimulatedGuest.Placement], frontendShift: UInt64) throws(Errno) {
        var regions: [DriverRegion] = []
        for placement in placements { regions.append(try DriverRegion(placement)) }
        self.regions = regions
        self.frontendShift = frontendShift
    }

    func mapForDevice() throws(Errno) -> GuestMemory {
        var mapped: [MappedRegion] = []
        for region in regions {
            let description = MemoryRegion(
                guestAddress: region.start, size: UInt64(region.count), frontendAddress: region.start &+ frontendShift,
                fileOffset: UInt64(region.fileOffset))
            mapped.append(try MappedRegion(description, fd: region.file))
        }
        return GuestMemory(mapped)
    }

    func write(_ bytes: [UInt8], at address: UInt64) {
        unsafe forEachPart(address, bytes.count) { part, done in
            unsafe bytes.withUnsafeBytes { source in
                unsafe part.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[done..<done + part.count]))
            }
        }
    }

    func read(_ count: Int, at address: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        unsafe forEachPart(address, count) { part, done in
            unsafe bytes.withUnsafeMutableBytes { target in
                let room = unsafe UnsafeMutableRawBufferPointer(rebasing: target[done..<done + part.count])
                unsafe room.copyMemory(from: UnsafeRawBufferPointer(part))
            }
        }
        return bytes
    }

    /// All bytes of all regions, one region after the other.
    func snapshot() -> [(start: UInt64, bytes: [UInt8])] {
        regions.map { ($0.start, read($0.count, at: $0.start)) }
    }

    /// The address of the first byte of a region that differs from `bytes`.
    func firstDifference(at start: UInt64, from bytes: [UInt8]) -> UInt64? {
        var difference: UInt64?
        unsafe forEachPart(start, bytes.count) { part, done in
            unsafe bytes.withUnsafeBytes { expected in
                guard difference == nil else { return }
                let here = unsafe UnsafeRawBufferPointer(rebasing: expected[done..<done + part.count])
                if unsafe memcmp(part.baseAddress!, here.baseAddress!, here.count) == 0 { return }
                let index = here.indices.first { unsafe part[$0] != here[$0] }
                difference = index.map { start + UInt64(done + $0) }
            }
        }
        return difference
    }

    private func forEachPart(_ address: UInt64, _ count: Int, _ body: (UnsafeMutableRawBufferPointer, Int) -> Void) {
        var done = 0
        while done < count {
            let next = address &+ UInt64(done)
            guard let region = regions.first(where: { next >= $0.start && next - $0.start < UInt64($0.count) }) else {
                preconditionFailure("the test reaches outside guest memory, at \(next)")
            }
            let inRegion = Int(next - region.start)
            let part = min(count - done, region.count - inRegion)
            unsafe body(UnsafeMutableRawBufferPointer(start: region.base + inRegion, count: part), done)
            done += part
        }
    }
}

/// One region: a memory file, mapped from its beginning.
@safe private final class DriverRegion {
    let start: UInt64
    let count: Int
    let fileOffset: Int
    let file: OwnedFD
    private let mapping: Mapping

    init(_ placement: SimulatedGuest.Placement) throws(Errno) {
        precondition(placement.size > 0 && placement.fileOffset >= 0)
        start = placement.guestAddress
        count = placement.size
        fileOffset = placement.fileOffset
        file = try makeMemoryFile(name: "simulated guest", count: fileOffset + count)
        mapping = try Mapping(sharing: file, count: fileOffset + count)
    }

    @unsafe var base: UnsafeMutableRawPointer { unsafe mapping.base + fileOffset }
}
