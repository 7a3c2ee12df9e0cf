import CWire
import SimulationKit

/// A block request as a driver thinks of it, before it is laid out in memory.
struct GuestRequest {
    /// What the device reads: header, then data to write or ranges.
    var readable: [UInt8]
    /// What the device writes: data read, then the status byte.
    var writableCount: Int
    /// How the readable part is cut into descriptors; nil: header and the rest.
    var readablePieces: [Int]?
    /// How the writable part is cut into descriptors; nil: data and status.
    var writablePieces: [Int]?
    /// The chain lies in an indirect table.
    var isIndirect = false
    /// What guest addresses of pieces are, modulo 4096; nil: whatever comes.
    var residue: Int?

    init(type: Int, sector: UInt64 = 0, data: [UInt8] = [], readCount: Int = 0) {
        readable =
            littleEndian(UInt32(truncatingIfNeeded: type)) + littleEndian(UInt32(0)) + littleEndian(sector) + data
        writableCount = readCount + 1
    }

    static func read(sector: UInt64, count: Int) -> GuestRequest {
        GuestRequest(type: WIRE_VIRTIO_BLK_T_IN, sector: sector, readCount: count)
    }

    static func write(sector: UInt64, _ bytes: [UInt8]) -> GuestRequest {
        GuestRequest(type: WIRE_VIRTIO_BLK_T_OUT, sector: sector, data: bytes)
    }

    static let flush = GuestRequest(type: WIRE_VIRTIO_BLK_T_FLUSH)

    static func identify(count: Int = 20) -> GuestRequest {
        GuestRequest(type: WIRE_VIRTIO_BLK_T_GET_ID, readCount: count)
    }

    static func discard(_ ranges: SectorRange...) -> GuestRequest { discard(ranges) }

    static func discard(_ ranges: [SectorRange]) -> GuestRequest {
        GuestRequest(type: WIRE_VIRTIO_BLK_T_DISCARD, data: ranges.flatMap(\.bytes))
    }

    static func writeZeroes(_ ranges: SectorRange...) -> GuestRequest { writeZeroes(ranges) }

    static func writeZeroes(_ ranges: [SectorRange]) -> GuestRequest {
        GuestRequest(type: WIRE_VIRTIO_BLK_T_WRITE_ZEROES, data: ranges.flatMap(\.bytes))
    }

    /// The same request with its parts cut into these pieces.
    func cut(readable: [Int]? = nil, writable: [Int]? = nil) -> GuestRequest {
        var request = self
        request.readablePieces = readable ?? readablePieces
        request.writablePieces = writable ?? writablePieces
        return request
    }

    /// The same request in an indirect table.
    var indirect: GuestRequest {
        var request = self
        request.isIndirect = true
        return request
    }

    /// The same request with each piece at an address that is this, modulo 4096.
    func at(residue: Int) -> GuestRequest {
        var request = self
        request.residue = residue
        return request
    }
}

/// One range of DISCARD or WRITE_ZEROES.
struct SectorRange {
    var sector: UInt64
    var count: UInt32
    var flags: UInt32

    init(_ sector: UInt64, _ count: UInt32, flags: UInt32 = 0) {
        self.sector = sector
        self.count = count
        self.flags = flags
    }

    var bytes: [UInt8] { littleEndian(sector) + littleEndian(count) + littleEndian(flags) }
}

func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

/// Bytes that tell where they belong: no two places, and no two seeds below 1000, have the same for long.
func pattern(_ count: Int, seed: Int = 0) -> [UInt8] {
    let start = seed % 1000 * 37
    return Array(patternBytes[start..<start + count])
}

private let patternBytes: [UInt8] = {
    var random = SeededRandom(seed: 1)
    return random.bytes(2 << 20)
}()
