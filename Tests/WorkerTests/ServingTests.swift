import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A real worker, real storage, and a driver that checks every sector it reads.
@Suite(.serialized) struct ServingTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    struct Shape: CustomStringConvertible {
        var queues: Int
        var threads: Int
        var ring: RingKind

        static let all = RingKind.allCases.flatMap {
            [Shape(queues: 1, threads: 1, ring: $0), Shape(queues: 4, threads: 2, ring: $0)]
        }
        var description: String { "\(queues) \(ring) queues, \(threads) threads" }
    }

    @Test(arguments: Medium.allCases, Shape.all)
    func `every sector read is the one that was written`(medium: Medium, _ shape: Shape) throws {
        let (options, device) = try medium.storage(in: directory.value)
        defer { withExtendedLifetime(device) {} }
        let worker = try WorkerProcess(
            options + ["--queues=\(shape.queues)", "--threads=\(shape.threads)"], in: directory.value)
        var rig = try Rig(
            connectingTo: worker.socketPath, behaviour: shape.ring.behaviour, queueCount: shape.queues,
            memorySize: 64 << 20)
        #expect(rig.frontend.usesPackedRings == (shape.ring == .packed))
        var load = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<UInt64(Medium.diskBytes / 512))
        load.threadPerQueue = shape.threads > 1
        load.overlapping = shape.threads == 1
        load.chainLayout = shape.queues > 1 ? .indirect : .direct
        load.maximumSegments = 8
        load.requestLimit = 4_000
        let report = try rig.runLoad(load)
        #expect(report.isClean, "\(report)")
        for operation in LoadOperation.allCases {
            #expect(report[operation].requests > 0, "\(operation)")
        }
        try rig.frontend.stop()
    }

    @Test(arguments: [FrontendBehaviour.qemu, .libblkio, .spdk], RingKind.allCases)
    func `front-ends of every kind are served one after the other`(behaviour: FrontendBehaviour, ring: RingKind) throws
    {
        let (options, _) = try Medium.bufferedFile.storage(in: directory.value)
        let worker = try WorkerProcess(options + ["--queues=2"], in: directory.value)
        var content = InitialContent.zeros
        for _ in 0..<3 {
            let addressing: GuestMemory.Addressing = behaviour.memoryMessages == .slots ? .guest : .mapped
            var rig = try Rig(
                connectingTo: worker.socketPath, behaviour: ring.applied(to: behaviour), queueCount: 2,
                addressing: addressing)
            var load = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<8192)
            load.initialContent = content
            load.requestLimit = 1_000
            let report = try rig.runLoad(load)
            #expect(report.isClean, "\(report)")
            content = .unknown
        }
    }

    @Test(arguments: [Medium.directFile, .bufferedFile, .loopDevice4096], RingKind.allCases)
    func `guest memory at any address and requests of single sectors`(medium: Medium, ring: RingKind) throws {
        let (options, device) = try medium.storage(in: directory.value)
        defer { withExtendedLifetime(device) {} }
        let worker = try WorkerProcess(options, in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath, behaviour: ring.behaviour)
        var disk = rig.makeDriver()
        let bytes = (0..<6144).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 / 512) }
        let base = disk.readableAddress
        for shift in [0, 1, 3, 7, 511, 513] as [UInt64] {
            disk.readableAddress = base + shift
            #expect(try disk.write(bytes, sector: 9).status == .ok)
            let odd = DescriptorLayout(writablePieces: [5, 1019, 4096, 1025])
            #expect(try disk.read(sector: 9, count: 6144, layout: odd).data == bytes)
            #expect(try disk.write(Array(bytes[0..<512]), sector: 9 + shift % 4).status == .ok)
        }
    }

    @Test func `a read-only disk can be read and not changed`() throws {
        let (options, _) = try Medium.directFile.storage(in: directory.value)
        let image = directory.value.file("disk.img")
        try TestFile.write([1, 2, 3], to: image, at: 512)
        unsafe chmod(image, 0o444)
        let worker = try WorkerProcess(options + ["--read-only", "--serial=read me"], in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath)
        #expect(rig.frontend.features & VirtioFeatures.blockReadOnly != 0)
        var disk = rig.makeDriver()
        #expect(try disk.read(sector: 1, count: 512).data.prefix(4) == [1, 2, 3, 0])
        #expect(try disk.write([UInt8](repeating: 9, count: 512), sector: 1).status == .ioError)
        #expect(try disk.discard([BlockSegment(sector: 0, sectorCount: 8)]).status == .ioError)
        #expect(try disk.writeZeroes([BlockSegment(sector: 0, sectorCount: 8)]).status == .ioError)
        #expect(try disk.flush().status == .ok)
        #expect(try disk.getID().data.prefix(8) == Array("read me".utf8) + [0])
        #expect(try TestFile.read(image, at: 512, count: 3) == [1, 2, 3])
    }

    @Test func `a full host gives the guest errors, and goes on`() throws {
        let mount = directory.value.file("small")
        #expect(try run("mkdir", [mount], in: directory.value).code == 0)
        #expect(try run("mount", ["-t", "tmpfs", "-o", "size=1M", "tmpfs", mount], in: directory.value).code == 0)
        defer { _ = try? run("umount", ["-l", mount], in: directory.value) }
        try TestFile.create("\(mount)/disk.img", count: 8 << 20)
        var worker = try WorkerProcess(["--blk-file=\(mount)/disk.img", "--cache=buffered"], in: directory.value)
        do {
            var rig = try Rig(connectingTo: worker.socketPath)
            var disk = rig.makeDriver()
            let chunk = [UInt8](repeating: 0x77, count: 65536)
            var statuses: [BlockStatus] = []
            for index in 0..<64 { statuses.append(try disk.write(chunk, sector: UInt64(index * 128)).status) }
            #expect(statuses.first == .ok)
            #expect(statuses.last == .ioError)
            #expect(try disk.read(sector: 0, count: 65536).data == chunk)
            #expect(try disk.discard([BlockSegment(sector: 0, sectorCount: 1024)]).status == .ok)
            #expect(try disk.write(chunk, sector: 8192).status == .ok)
        }
        worker.program.stop()
        #expect(worker.program.output.contains("no-space="), "\(worker.program.output)")
    }

    @Test func `discarded space is given back and reads as zeroes`() throws {
        let (options, _) = try Medium.directFile.storage(in: directory.value)
        let worker = try WorkerProcess(options, in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath)
        var disk = rig.makeDriver()
        let image = directory.value.file("disk.img")
        func blocks() -> Int {
            var status = stat()
            _ = unsafe stat(image, &status)
            return Int(status.st_blocks)
        }
        for index in 0..<16 {
            let bytes = [UInt8](repeating: 0x55, count: 65536)
            #expect(try disk.write(bytes, sector: UInt64(index * 128)).status == .ok)
        }
        #expect(try disk.flush().status == .ok)
        let full = blocks()
        #expect(full >= 2048)
        #expect(try disk.discard((0..<16).map { BlockSegment(sector: $0 * 128, sectorCount: 64) }).status == .ok)
        #expect(blocks() <= full / 2 + 64)
        let keeping = BlockSegment(sector: 64, sectorCount: 64)
        #expect(try disk.writeZeroes([keeping]).status == .ok)
        #expect(try disk.read(sector: 0, count: 65536).data == [UInt8](repeating: 0, count: 65536))
        #expect(try disk.read(sector: 192, count: 512).data == [UInt8](repeating: 0x55, count: 512))
    }
}
