import BlockTarget
import CWire
import Platform
import SimulationKit
import Telemetry
import Testing
import Virtio

/// What a request may ask for: VIRTIO 1.2, section 5.2.6.
@Suite("Rules for requests")
struct RulesTests {
    static let sectors = Disks.sectors

    @Test(
        "the last sector is there, the one behind it is not",
        arguments: [
            (sectors - 1, 512, ok), (sectors - 4, 2048, ok), (sectors, 0, ok), (sectors, 512, ioError),
            (sectors - 1, 1024, ioError), (sectors + 1, 0, ioError), (sectors + 1, 512, ioError),
            (0, 0, ok), (1 << 55, 512, ioError), (1 << 55, 0, ioError), ((1 << 55) - 1, 512, ioError),
            (1 << 63, 512, ioError), (.max, 512, ioError), (.max, 0, ioError), (.max - 1, 1024, ioError),
        ] as [(UInt64, Int, UInt8)])
    func sectorArithmetic(sector: UInt64, count: Int, status: UInt8) throws {
        let bench = try Disks.memory()
        let read = try bench.perform(.read(sector: sector, count: count))
        #expect(read.isAnswered(status, usedLength: status == ok ? UInt32(count + 1) : 1))
        if status != ok { #expect(read.data.allSatisfy { $0 == 0xff }, "a refused read writes its status and no more") }
        #expect(try bench.perform(.write(sector: sector, pattern(count))).isAnswered(status, usedLength: 1))
    }

    @Test("data is whole sectors", arguments: [1, 16, 511, 513, 1023])
    func partsOfSectors(count: Int) throws {
        let bench = try Disks.memory()
        #expect(try bench.perform(.read(sector: 0, count: count)).isAnswered(ioError, usedLength: 1))
        #expect(try bench.perform(.write(sector: 0, pattern(count))).isAnswered(ioError, usedLength: 1))
        #expect(bench.counts.malformed == 2)
    }

    @Test("a header that is too short gets an error", arguments: 0...15)
    func shortHeader(count: Int) throws {
        let bench = try Disks.memory()
        var request = GuestRequest.read(sector: 0, count: 512)
        request.readable = Array(request.readable.prefix(count))
        #expect(try bench.perform(request).isAnswered(ioError, usedLength: 1))
    }

    @Test("a request without room for a status comes back with length 0", arguments: [[], [0], [0, 0]])
    func noStatus(writable: [Int]) throws {
        let bench = try Disks.memory()
        var request = GuestRequest.write(sector: 0, pattern(512))
        request.writableCount = 0
        request.writablePieces = writable
        #expect(try bench.perform(request).usedLength == 0)
        #expect(try bench.perform(.read(sector: 0, count: 512)).data.allSatisfy { $0 == 0 }, "and nothing was written")
        #expect(bench.counts.malformed == 1)
    }

    @Test(
        "a type that nobody knows is unsupported", arguments: [2, 3, 5, 7, 9, 10, 12, 14, 16, 0x8000_0000, 0xffff_ffff])
    func unknownType(type: Int) throws {
        let bench = try Disks.memory()
        #expect(try bench.perform(GuestRequest(type: type)).isAnswered(unsupported, usedLength: 1))
        #expect(try bench.perform(GuestRequest(type: type, readCount: 512)).isAnswered(unsupported, usedLength: 1))
        #expect(bench.counts.malformed == 0)
        #expect(bench.counts.errors == 2)
    }

    @Test("a flush is answered on every disk, whatever comes with it")
    func flush() throws {
        for isReadOnly in [false, true] {
            let bench = try Disks.memory(Disks.description(isReadOnly: isReadOnly))
            #expect(try bench.perform(.flush).isAnswered(ok, usedLength: 1))
            let odd = GuestRequest(type: WIRE_VIRTIO_BLK_T_FLUSH, sector: .max, data: pattern(100), readCount: 5)
            #expect(try bench.perform(odd).isAnswered(ok, usedLength: 1))
        }
    }

    @Test("a read-only disk is read and never changed")
    func readOnly() throws {
        let storage = Disks.storage()
        let before = storage.contents
        let bench = try Disks.simulated(storage, Disks.description(isReadOnly: true))
        #expect(try bench.perform(.read(sector: 3, count: 512)).data == Array(before[1536..<2048]))
        #expect(try bench.perform(.write(sector: 3, pattern(512))).isAnswered(ioError, usedLength: 1))
        #expect(try bench.perform(.discard(SectorRange(0, 8))).isAnswered(ioError, usedLength: 1))
        #expect(try bench.perform(.writeZeroes(SectorRange(0, 8))).isAnswered(ioError, usedLength: 1))
        #expect(try bench.perform(.flush).status == ok)
        #expect(storage.contents == before)
        #expect(storage.history.count == 1, "a read-only image is not even flushed")
    }

    // MARK: GET_ID

    @Test("GET_ID returns the serial number in 20 bytes, padded with zeroes", arguments: ["", "x", "a serial number"])
    func identity(serial: String) throws {
        let bench = try Disks.memory(Disks.description(serial: serial))
        let padded = Array((Array(serial.utf8) + [UInt8](repeating: 0, count: 20)).prefix(20))
        for request in [
            GuestRequest.identify(), .identify().cut(writable: [7, 0, 13, 1]), .identify().cut(writable: [21]),
        ] {
            #expect(try bench.perform(request) == Answer(status: ok, usedLength: 21, data: padded))
        }
    }

    @Test("a serial number is cut off after 20 bytes")
    func longIdentity() throws {
        let bench = try Disks.memory(Disks.description(serial: "0123456789abcdefghijKLM"))
        #expect(try bench.perform(.identify()).data == Array("0123456789abcdefghij".utf8))
    }

    @Test("GET_ID fills what room there is, and says how much it wrote", arguments: [0, 1, 19, 20, 21, 512])
    func identityInOddRoom(count: Int) throws {
        let bench = try Disks.memory(Disks.description(serial: "0123456789abcdefghij"))
        let answer = try bench.perform(.identify(count: count))
        let written = min(20, count)
        #expect(answer.isAnswered(ok, usedLength: UInt32(written + 1)))
        #expect(Array(answer.data.prefix(written)) == Array("0123456789abcdefghij".utf8.prefix(count)))
        #expect(answer.data.dropFirst(written).allSatisfy { $0 == 0xff })
    }

    // MARK: DISCARD and WRITE_ZEROES

    @Test("1 to 32 ranges are taken", arguments: [1, 2, 31, 32])
    func manyRanges(count: Int) throws {
        let storage = Disks.storage()
        let bench = try Disks.simulated(storage)
        var expected = storage.contents
        let ranges = (0..<count).map { SectorRange(UInt64(3 * $0), 2) }
        for range in ranges {
            expected.replaceSubrange(
                Int(range.sector) * 512..<Int(range.sector + 2) * 512, with: repeatElement(0, count: 1024))
        }
        #expect(try bench.perform(.writeZeroes(ranges)).isAnswered(ok, usedLength: 1))
        #expect(storage.contents == expected)
        #expect(try bench.perform(.discard(ranges)).isAnswered(ok, usedLength: 1))
        // However they are cut.
        let cut = GuestRequest.writeZeroes(ranges).cut(
            readable: [16 + 7] + Array(repeating: 1, count: 9) + [count * 16 - 16])
        #expect(try bench.perform(cut).isAnswered(ok, usedLength: 1))
    }

    @Test("no range, more than 32, and parts of ranges are refused")
    func wrongNumberOfRanges() throws {
        let bench = try Disks.memory()
        let ranges = (0..<33).map { SectorRange(UInt64($0), 1) }
        for type in [WIRE_VIRTIO_BLK_T_DISCARD, WIRE_VIRTIO_BLK_T_WRITE_ZEROES] {
            for data in [[], ranges.flatMap(\.bytes), pattern(1), pattern(15), Array(ranges[0].bytes + [0])] {
                #expect(try bench.perform(GuestRequest(type: type, data: data)).isAnswered(ioError, usedLength: 1))
            }
        }
    }

    @Test(
        "a range lies on the disk",
        arguments: [
            (SectorRange(0, 0), ok), (SectorRange(sectors, 0), ok), (SectorRange(sectors - 1, 1), ok),
            (SectorRange(sectors - 1, 2), ioError), (SectorRange(sectors, 1), ioError),
            (SectorRange(sectors + 1, 0), ioError), (SectorRange(1 << 55, 1), ioError),
            (SectorRange(.max, 1), ioError), (SectorRange(.max, .max), ioError), (SectorRange(0, .max), ioError),
            (SectorRange(UInt64(UInt32.max) + 1, .max), ioError),
        ])
    func rangesOnTheDisk(range: SectorRange, status: UInt8) throws {
        let bench = try Disks.memory()
        #expect(try bench.perform(.discard(range)).isAnswered(status, usedLength: 1))
        #expect(try bench.perform(.writeZeroes(range)).isAnswered(status, usedLength: 1))
    }

    @Test("one bad range spoils the request before anything is done")
    func oneBadRange() throws {
        let storage = Disks.storage()
        let before = storage.contents
        let bench = try Disks.simulated(storage)
        #expect(try bench.perform(.writeZeroes(SectorRange(0, 8), SectorRange(Self.sectors, 1))).status == ioError)
        #expect(storage.contents == before)
        #expect(storage.history.isEmpty)
    }

    @Test("a range is at most 2 GiB")
    func longRange() throws {
        var description = Disks.description()
        description.sectors = 1 << 24
        let bench = try Disks.memory(description)
        let most = DiskDescription.maximumRangeSectors
        #expect(try bench.perform(.discard(SectorRange(0, most))).status == ok)
        #expect(try bench.perform(.discard(SectorRange(0, most + 1))).status == ioError)
    }

    @Test(
        "unmap belongs to WRITE_ZEROES; every other flag to nobody",
        arguments: [2, 4, 0x8000_0000, 3, .max] as [UInt32])
    func flags(flags: UInt32) throws {
        let bench = try Disks.memory()
        #expect(try bench.perform(.writeZeroes(SectorRange(0, 1, flags: 1))).isAnswered(ok, usedLength: 1))
        #expect(try bench.perform(.discard(SectorRange(0, 1, flags: 1))).isAnswered(unsupported, usedLength: 1))
        #expect(try bench.perform(.discard(SectorRange(0, 1, flags: flags))).isAnswered(unsupported, usedLength: 1))
        #expect(try bench.perform(.writeZeroes(SectorRange(0, 1, flags: flags))).isAnswered(unsupported, usedLength: 1))
    }

    @Test("what was not agreed on is unsupported")
    func notAgreed() throws {
        let discard: UInt64 = 1 << 13
        let writeZeroes: UInt64 = 1 << 14
        let all = Disks.description().features
        let without = try Disks.memory(features: all & ~(discard | writeZeroes))
        #expect(try without.perform(.discard(SectorRange(0, 1))).isAnswered(unsupported, usedLength: 1))
        #expect(try without.perform(.writeZeroes(SectorRange(0, 1))).isAnswered(unsupported, usedLength: 1))
        let withoutDiscard = try Disks.memory(features: all & ~discard)
        #expect(try withoutDiscard.perform(.discard(SectorRange(0, 1))).status == unsupported)
        #expect(try withoutDiscard.perform(.writeZeroes(SectorRange(0, 1))).status == ok)
    }

    /// A driver may give away as many bytes as it likes: marking them all would hold the queue up.
    @Test("what is not written is not marked in the dirty log", arguments: [true, false])
    func marks(isRead: Bool) throws {
        let bench = try Disks.memory()
        let file = try makeMemoryFile(name: "dirty log", count: 4096)
        let log = try Mapping(sharing: file, count: 4096)
        bench.disk.queues[0].setDirtyLog(try DirtyLog(fd: file, offset: 0, count: 4096))
        // Each of the three at the beginning of a page: what is read, 16 pages to be written, the status byte.
        let pages = 16 * 4096
        let request =
            isRead
            ? GuestRequest.read(sector: Self.sectors, count: pages).at(residue: 0)
            : GuestRequest.identify(count: pages).at(residue: 0)
        let answer = try bench.perform(request.cut(writable: [4096, pages - 4096, 1]))
        #expect(answer.status == (isRead ? ioError : ok))
        let first = Int(BenchMemory.start / 4096)
        let marked = (first..<first + 20).filter { page in
            unsafe log.base.load(fromByteOffset: page / 8, as: UInt8.self) & 1 << UInt8(page % 8) != 0
        }
        #expect(marked.count == (isRead ? 1 : 2), "\(marked)")
    }
}
