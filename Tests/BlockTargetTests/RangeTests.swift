import BlockTarget
import CLinux
import Glibc
import Platform
import SimulationKit
import Testing
import Uring

/// DISCARD and WRITE_ZEROES: what the storage is asked to do, and what becomes of a no.
@Suite("Ranges")
struct RangeTests {
    static let punch = UInt32(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
    static let zeroRange = UInt32(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

    let storage = Disks.storage()

    /// What the storage was asked, in a word each.
    var asked: [String] {
        storage.history.map { operation in
            switch operation.kind {
            case .discardDevice: "discard"
            case .allocate where operation.flags == Self.punch: "punch"
            case .allocate where operation.flags == Self.zeroRange: "zero"
            case .synchronizeData: "sync"
            case .write: "write"
            default: "\(operation.kind)"
            }
        }
    }

    /// Makes these kinds of operations fail with an error.
    func refuse(_ error: Errno, _ words: Set<String>) {
        storage.outcome = { operation, _ in
            let word =
                switch operation.kind {
                case .discardDevice: "discard"
                case .allocate: operation.flags == Self.punch ? "punch" : "zero"
                case .write, .writeVectors: "write"
                case .synchronizeData: "sync"
                default: ""
                }
            return words.contains(word) ? .fails(error) : .complete
        }
    }

    static let range = SectorRange(8, 16)
    static let bytes = 4096..<12288

    var isZeroed: Bool { storage.contents[Self.bytes].allSatisfy { $0 == 0 } }

    @Test("a file: DISCARD punches a hole, WRITE_ZEROES zeroes a range, and punches if it may")
    func file() throws {
        let bench = try Disks.simulated(storage)
        #expect(try bench.perform(.discard(Self.range)).isAnswered(ok, usedLength: 1))
        #expect(try bench.perform(.writeZeroes(Self.range)).isAnswered(ok, usedLength: 1))
        var unmapping = Self.range
        unmapping.flags = 1
        #expect(try bench.perform(.writeZeroes(unmapping)).isAnswered(ok, usedLength: 1))
        #expect(asked == ["punch", "zero", "punch"])
        #expect(storage.history.allSatisfy { $0.offset == 4096 && $0.length == 8192 })
        #expect(isZeroed)
    }

    @Test("a block device: DISCARD is passed on; zeroes never depend on it")
    func blockDevice() throws {
        let bench = try Disks.simulated(storage, isBlockDevice: true)
        var unmapping = Self.range
        unmapping.flags = 1
        _ = try bench.perform(.discard(Self.range))
        _ = try bench.perform(.writeZeroes(unmapping))
        _ = try bench.perform(.writeZeroes(Self.range))
        #expect(asked == ["discard", "punch", "zero"])
    }

    @Test("the space is freed only when every range allows it")
    func mixedFlags() throws {
        let bench = try Disks.simulated(storage)
        _ = try bench.perform(.writeZeroes(SectorRange(0, 1, flags: 1), SectorRange(8, 1, flags: 1)))
        _ = try bench.perform(.writeZeroes(SectorRange(0, 1, flags: 1), SectorRange(8, 1)))
        #expect(asked == ["punch", "punch", "zero", "zero"])
    }

    @Test(
        "what the storage cannot do is done another way, and not asked for again",
        arguments: [EOPNOTSUPP, ENOSYS, ENOTTY])
    func unsupported(number: Int32) throws {
        refuse(Errno(rawValue: number), ["discard", "punch", "zero"])
        let bench = try Disks.simulated(storage, isBlockDevice: true)
        var unmapping = Self.range
        unmapping.flags = 1
        #expect(try bench.perform(.writeZeroes(unmapping)).status == ok)
        #expect(isZeroed)
        #expect(try bench.perform(.writeZeroes(unmapping)).status == ok)
        #expect(try bench.perform(.discard(Self.range)).isAnswered(BlockTargetTests.unsupported, usedLength: 1))
        #expect(try bench.perform(.discard(Self.range)).isAnswered(BlockTargetTests.unsupported, usedLength: 1))
        #expect(asked == ["punch", "zero", "write", "write", "discard"])
        #expect(bench.faults == StorageFaults())
    }

    @Test("a range that never comes free: zeroes are written, a discard is only advice")
    func busy() throws {
        refuse(.busy, ["discard", "punch", "zero"])
        let bench = try Disks.simulated(storage, isBlockDevice: true)
        var unmapping = Self.range
        unmapping.flags = 1
        #expect(try bench.perform(.writeZeroes(unmapping)).status == ok)
        #expect(isZeroed)
        #expect(try bench.perform(.writeZeroes(Self.range, SectorRange(32, 8))).status == ok)
        #expect(try bench.perform(.discard(Self.range)).status == ok)
        #expect(asked.filter { $0 == "write" }.count == 3)
        #expect(bench.faults.errors == 0)
        // It is asked for again, as it may be free then.
        refuse(.busy, [])
        #expect(try bench.perform(.writeZeroes(Self.range)).status == ok)
        #expect(asked.last == "zero")
    }

    @Test("a range that fits no block of the storage: zeroes are written, a discard is only advice")
    func misaligned() throws {
        storage.rangeAlignment = 4096
        let before = storage.contents
        let bench = try Disks.simulated(storage, isBlockDevice: true)
        #expect(try bench.perform(.discard(SectorRange(1, 3))).isAnswered(ok, usedLength: 1))
        #expect(storage.contents == before)
        #expect(try bench.perform(.writeZeroes(SectorRange(1, 3))).isAnswered(ok, usedLength: 1))
        #expect(storage.contents == Array(before[..<512]) + [UInt8](repeating: 0, count: 1536) + before[2048...])
        #expect(asked == ["discard", "punch", "zero", "write"])
        // The next one may fit: it is asked for.
        #expect(try bench.perform(.discard(Self.range)).status == ok)
        #expect(try bench.perform(.writeZeroes(Self.range)).status == ok)
        #expect(asked.suffix(2) == ["discard", "zero"])
        #expect(isZeroed)
    }

    @Test("each range of a request finds its own way")
    func eachItsOwn() throws {
        storage.rangeAlignment = 4096
        let bench = try Disks.simulated(storage)
        let request = GuestRequest.writeZeroes(
            SectorRange(8, 8), SectorRange(17, 2), SectorRange(24, 0), SectorRange(32, 8))
        #expect(try bench.perform(request).status == ok)
        #expect(asked == ["zero", "zero", "write", "zero"])
        #expect(storage.contents[16384..<20480].allSatisfy { $0 == 0 })
        #expect(storage.contents[8704..<9728].allSatisfy { $0 == 0 })
    }

    @Test(
        "zeroes are written in parts, aligned where they can be, and go on after short writes", arguments: [0, 1, 1000])
    func writtenZeroes(short: UInt64) throws {
        refuse(.notSupported, ["zero"])
        storage.directAlignment = (4096, 4096)
        let refusing = storage.outcome
        storage.outcome = { operation, random in
            let isFirst = operation.isWrite && operation.offset == 512
            return isFirst && short > 0 ? .short(short) : refusing(operation, &random)
        }
        let before = storage.contents
        let bench = try Disks.simulated(storage)
        #expect(try bench.perform(.writeZeroes(SectorRange(1, 1100), SectorRange(1104, 1000))).status == ok)
        var expected = before
        expected.replaceSubrange(512..<512 * 1101, with: repeatElement(0, count: 512 * 1100))
        expected.replaceSubrange(512 * 1104..<512 * 2104, with: repeatElement(0, count: 512 * 1000))
        #expect(storage.contents == expected)
        #expect(storage.history.filter(\.isWrite).allSatisfy { $0.length <= 262_144 })
        #expect(storage.history.last { $0.isWrite }?.file == SimulatedStorage.directFile)
        #expect(bench.faults.shortTransfers == (short > 0 ? 1 : 0))
    }

    @Test("a range in which nothing can be written is an I/O error")
    func endOfFile() throws {
        refuse(.notSupported, ["zero"])
        let refusing = storage.outcome
        storage.outcome = { operation, random in operation.isWrite ? .endOfFile : refusing(operation, &random) }
        let bench = try Disks.simulated(storage)
        #expect(try bench.perform(.writeZeroes(Self.range)).isAnswered(ioError, usedLength: 1))
        #expect(bench.faults == TransferTests.faults { $0.unexpectedEnds = 1 })
    }

    @Test("no room and other errors end the request", arguments: [ENOSPC, EDQUOT, EIO, EFBIG])
    func errors(number: Int32) throws {
        refuse(Errno(rawValue: number), ["punch", "zero"])
        let bench = try Disks.simulated(storage)
        #expect(try bench.perform(.discard(Self.range)).isAnswered(ioError, usedLength: 1))
        #expect(try bench.perform(.writeZeroes(Self.range, Self.range)).isAnswered(ioError, usedLength: 1))
        #expect(asked == ["punch", "zero"])
        let isSpace = number == ENOSPC || number == EDQUOT
        #expect(bench.faults == TransferTests.faults { ($0.noSpace, $0.errors) = isSpace ? (2, 0) : (0, 2) })
    }

    @Test("with the write cache off, ranges are synchronised once, after the last")
    func writesThrough() throws {
        let bench = try Disks.simulated(storage, writesThrough: true)
        #expect(try bench.perform(.discard(Self.range, SectorRange(100, 8))).status == ok)
        #expect(asked == ["punch", "punch", "sync"])
        #expect(try bench.perform(.writeZeroes(SectorRange(0, 0))).status == ok)
        refuse(.inputOutput, ["sync"])
        #expect(try bench.perform(.writeZeroes(Self.range)).isAnswered(ioError, usedLength: 1))
        #expect(asked.suffix(2) == ["zero", "sync"])
        refuse(.notSupported, ["sync"])
        #expect(try bench.perform(.writeZeroes(Self.range)).isAnswered(ioError, usedLength: 1))
        #expect(asked.suffix(2) == ["zero", "sync"], "a refused sync is not taken for a refused way to zero")
    }

    @Test("a stalled range, and a stalled synchronisation, are taken up again")
    func stalls() throws {
        storage.queueDepth = 1
        let bench = try Disks.simulated(storage, writesThrough: true)
        let heads = (0..<8).map { bench.submit(.writeZeroes(SectorRange(UInt64(8 * $0), 8))) }
        #expect(bench.disk.settle())
        let answers = try bench.answers()
        #expect(heads.allSatisfy { answers[$0]?.status == ok })
        #expect(storage.contents[0..<32768].allSatisfy { $0 == 0 })
        #expect(asked.filter { $0 == "sync" }.count == 8)
    }
}
