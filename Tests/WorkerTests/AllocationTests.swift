import FrontendKit
import Platform
import TestSupport
import Testing

/// Once a worker serves, no request costs it an allocation: shown by a count, not by a clock.
@Suite(.serialized) struct AllocationTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    static let requests = 100_000
    /// Enough for every page, lock and table that is made when it is first used.
    static let warmUp = 20_000

    @Test(arguments: ["null", "memory", "file"], RingKind.allCases)
    func `requests cost no allocation`(backend: String, ring: RingKind) throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 64 << 20)
        let storage =
            backend == "file"
            ? ["--blk-file=\(image)", "--cache=buffered"] : ["--backend=\(backend)", "--size=\(64 << 20)"]
        let counter = try AllocationCounter(in: directory.value)
        let socketPath = directory.value.file("worker.sock")
        var worker = try Program(
            "env", counter.environment + [WorkerProcess.executable, "--socket-path=\(socketPath)"] + storage,
            in: directory.value)
        try worker.waitForFile(socketPath)
        var rig = try Rig(connectingTo: socketPath, behaviour: ring.behaviour)
        var driver = try MixedLoad(&rig)
        try driver.run(Self.warmUp)
        let before = try counter.count
        try driver.run(Self.requests)
        let after = try counter.count
        print("\(backend), \(ring): \(before) allocations before, \(after) after \(Self.requests) requests")
        #expect(before > 100, "the counter counts")
        #expect(after == before)
        worker.stop()
    }
}

/// A library that counts the allocations of the program that it is loaded into.
private struct AllocationCounter {
    private let library: String
    private let file: String

    /// Compiles it.
    init(in directory: borrowing TemporaryDirectory, source: String = #filePath) throws {
        let folder = source.split(separator: "/").dropLast(2).joined(separator: "/")
        library = directory.file("counter.so")
        file = directory.file("count")
        try TestFile.create(file, count: 8)
        let arguments = ["-shared", "-fPIC", "-O2", "-o", library, "/\(folder)/AllocationCounter/AllocationCounter.c"]
        let result = try TestSupport.run("cc", arguments, in: directory)
        try #require(result.code == 0, "\(result.output)")
    }

    /// What a program needs in its environment.
    var environment: [String] { ["LD_PRELOAD=\(library)", "BATON_ALLOCATION_COUNT=\(file)"] }

    var count: UInt64 {
        get throws {
            try TestFile.read(file, count: 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
    }
}

/// Every kind of request, 32 in flight, some in several pieces.
private struct MixedLoad: ~Copyable {
    private var queue: BlockQueue
    private let data: UInt64
    private let ranges: UInt64
    private var random = SeededGenerator(seed: 1)

    private static let depth = 32

    init(_ rig: inout Rig) throws {
        let driver = DriverQueue(rig.endpoints[0], usesEventIndex: rig.frontend.usesEventIndex)
        queue = BlockQueue(driver, depth: Self.depth, layout: .direct, maximumPieces: 4, in: &rig.allocator)
        data = rig.allocator.allocate(Self.depth * 4096, alignment: 4096)
        ranges = rig.allocator.allocate(BlockSegment.byteCount)
        rig.memory.write(BlockSegment.bytes(of: [BlockSegment(sector: 8, sectorCount: 8)]), at: ranges)
    }

    /// Sends `count` requests and waits for all.
    mutating func run(_ count: Int) throws {
        var (sent, done) = (0, 0)
        while done < count {
            while sent < count, queue.hasRoom {
                queue.submit(request(sent))
                sent += 1
            }
            queue.publish()
            let came = queue.waitForCompletion(milliseconds: 30_000)
            try #require(came)
            while let completion = try queue.nextCompletion() {
                try #require(completion.status == .ok)
                done += 1
            }
        }
    }

    private mutating func request(_ number: Int) -> BlockRequest {
        let buffer = data + UInt64(number % Self.depth * 4096)
        let sector = random.next(below: 16_000) * 8
        switch number % 64 {
        case 0: return BlockRequest(.flush)
        case 1: return BlockRequest(.writeZeroes, dataAddress: ranges, dataLength: UInt32(BlockSegment.byteCount))
        case 2: return BlockRequest(.discard, dataAddress: ranges, dataLength: UInt32(BlockSegment.byteCount))
        default:
            let kind: BlockRequestKind = number % 2 == 0 ? .read : .write
            return BlockRequest(
                kind, sector: sector, dataAddress: buffer, dataLength: 4096, pieces: 1 + number % 4)
        }
    }
}
