import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser
import Virtio

/// A real worker marks in the dirty log of a migration what it writes to guest memory.
@Suite(.serialized) struct DirtyLogTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private static func pages(_ address: UInt64, _ count: Int) -> Set<UInt64> {
        Set(address / 4096...(address + UInt64(count) - 1) / 4096)
    }

    /// A request, and the pages that it marks.
    private func marks(
        _ log: DirtyBitmap, _ disk: inout BlockDriver, _ request: (inout BlockDriver) throws -> BlockResult
    ) throws -> Set<UInt64> {
        _ = log.takeMarks()
        #expect(try request(&disk).status == .ok)
        return log.takeMarks()
    }

    @Test(arguments: [["--backend=memory", "--size=8M"], ["FILE", "--cache=direct"], ["FILE", "--cache=buffered"]])
    func `what is written is marked: data, status, used ring, and nothing else`(storage: [String]) throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 8 << 20)
        let options = storage.map { $0 == "FILE" ? "--blk-file=\(image)" : $0 }
        let worker = try WorkerProcess(options, in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath)
        var disk = rig.makeDriver()
        let log = try DirtyBitmap(for: rig.memory)
        #expect(try disk.read(sector: 0, count: 65536).status == .ok)
        #expect(log.takeMarks().isEmpty)
        try rig.frontend.startLogging(log)
        let ring = rig.endpoints[0].ring
        let usedRing = Self.pages(ring.usedRing, SplitRing.usedRingCount(ring.size))
        let buffer = Self.pages(disk.writableAddress, 65537)
        let read = try marks(log, &disk) { (disk) throws in try disk.read(sector: 8, count: 65536) }
        #expect(read == buffer.union(usedRing))
        let status = Self.pages(disk.writableAddress, 1)
        let written = try marks(log, &disk) { (disk) throws in
            try disk.write([UInt8](repeating: 7, count: 8192), sector: 8)
        }
        #expect(written == status.union(usedRing))
        let identified = try marks(log, &disk) { (disk) throws in try disk.getID() }
        #expect(identified == Self.pages(disk.writableAddress, 21).union(usedRing))
        try rig.frontend.stopLogging()
        let after = try marks(log, &disk) { (disk) throws in try disk.read(sector: 8, count: 65536) }
        #expect(after.isEmpty)
        try rig.frontend.stop()
    }

    @Test func `another log takes the place of the first, which is not written to any more`() throws {
        let worker = try WorkerProcess(["--backend=null"], in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath)
        var disk = rig.makeDriver()
        let first = try DirtyBitmap(for: rig.memory)
        let second = try DirtyBitmap(for: rig.memory)
        try rig.frontend.startLogging(first)
        #expect(try disk.flush().status == .ok)
        try rig.frontend.setDirtyLog(second)
        _ = first.takeMarks()
        #expect(try disk.flush().status == .ok)
        #expect(first.takeMarks().isEmpty)
        #expect(!second.takeMarks().isEmpty)
        try rig.frontend.stop()
    }

    @Test func `a log that is shorter than its file, or than memory, is refused`() throws {
        let worker = try WorkerProcess(["--backend=null"], in: directory.value)
        for (claimed, file) in [(4096, 2048), (64, 64)] {
            let rig = try Rig(connectingTo: worker.socketPath)
            let log = try DirtyBitmap(bytes: file)
            #expect(throws: FrontendError.self) {
                _ = try rig.frontend.ask(
                    .setLogBase(LogDescription(size: UInt64(claimed), fileOffset: 0)), fds: [log.file.number])
            }
            let isClosed = rig.frontend.isClosedByBackend(within: 10_000)
            #expect(isClosed)
        }
        // A connection is taken when the one before has ended.
        _ = try Frontend.connect(to: worker.socketPath).backendProcess
        let output = worker.program.output
        #expect(output.contains("a dirty log of 4096 bytes is larger than its file"), "\(output)")
        #expect(output.contains("a dirty log of 64 bytes for memory that needs 1024"), "\(output)")
    }

    /// What is copied while the guest runs, and copied again where it is marked, is in the end what the guest has.
    @Test func `a copy kept up to date by the log is the same as memory`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 8 << 20)
        let seed = makeSeed()
        let worker = try WorkerProcess(["--blk-file=\(image)"], in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath, memorySize: 4 << 20)
        var disk = rig.makeDriver()
        for sector in stride(from: 0 as UInt64, to: 4096, by: 128) {
            #expect(try disk.write([UInt8](repeating: UInt8(sector / 128) | 1, count: 65536), sector: sector).status == .ok)
        }
        var random = SeededGenerator(seed: seed)
        let log = try DirtyBitmap(for: rig.memory)
        try rig.frontend.startLogging(log)
        for round in 0..<50 {
            let sector = random.next(below: 4096)
            let count = Int(random.next(below: 64) + 1) * 512
            // What the driver itself writes is done before the copy, but for what `read` writes around its buffer.
            _ = try disk.read(sector: sector, count: count)
            var copy = rig.memory.read(4 << 20, at: 0)
            _ = log.takeMarks()
            let result = try disk.read(sector: sector / 2, count: 65536)
            for page in log.takeMarks() {
                let start = Int(page) * 4096
                copy.replaceSubrange(start..<start + 4096, with: rig.memory.read(4096, at: page * 4096))
            }
            let place = Int(disk.writableAddress)
            #expect(Array(copy[place..<place + 65536]) == result.data, "seed \(seed), round \(round)")
            #expect(copy[place + 65536] == 0)
        }
        try rig.frontend.stop()
    }
}
