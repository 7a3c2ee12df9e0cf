import FrontendKit
import Platform
import TestSupport
import Testing
import VhostUser

/// A real back-end of other people's making: what FrontendKit asks of it is what real front-ends ask.
@Suite struct StorageDaemonTests {
    let directory: TemporaryDirectoryBox

    init() throws {
        directory = TemporaryDirectoryBox(try TemporaryDirectory())
    }

    static let diskSize = 16 << 20

    func makeImage() throws -> String {
        let path = directory.value.file("disk.img")
        try TestFile.create(path, count: Self.diskSize)
        return path
    }

    static var shortSPDK: FrontendBehaviour {
        var behaviour = FrontendBehaviour.spdk
        // SPDK asks for 256 bytes of configuration; this back-end answers with 60, and SPDK cannot use it.
        behaviour.configurationSize = 60
        return behaviour
    }

    @Test(arguments: [FrontendBehaviour.qemu, .libblkio, shortSPDK])
    func readsWhatItWrote(behaviour: FrontendBehaviour) throws {
        let daemon = try StorageDaemon(image: makeImage(), in: directory.value)
        let addressing: GuestMemory.Addressing = behaviour.memoryMessages == .slots ? .guest : .mapped
        var rig = try Rig(connectingTo: daemon.socketPath, behaviour: behaviour, addressing: addressing)
        #expect(try rig.frontend.readBlockConfiguration().capacity == UInt64(Self.diskSize / 512))
        #expect(rig.frontend.backendProcess == daemon.program.pid)
        var disk = rig.makeDriver()
        let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        #expect(try disk.write(bytes, sector: 8).status == .ok)
        let result = try disk.read(sector: 8, count: 4096)
        #expect(result.status == .ok)
        #expect(result.data == bytes)
        #expect(try rig.frontend.stop() == [2])
    }

    @Test func asksForLessConfigurationThanItGets() throws {
        let daemon = try StorageDaemon(image: makeImage(), in: directory.value)
        let frontend = try Frontend.connect(to: daemon.socketPath, behaviour: .spdk)
        #expect(throws: FrontendError.self) { try frontend.readConfiguration() }
    }

    @Test func knowsEveryRequest() throws {
        let daemon = try StorageDaemon(image: makeImage(), in: directory.value)
        var rig = try Rig(connectingTo: daemon.socketPath)
        var disk = rig.makeDriver()
        let bytes = [UInt8](repeating: 0x5a, count: 8192)
        #expect(try disk.write(bytes, sector: 0).status == .ok)
        #expect(try disk.flush().status == .ok)
        #expect(try disk.writeZeroes([BlockSegment(sector: 1, sectorCount: 2)]).status == .ok)
        #expect(try disk.discard([BlockSegment(sector: 8, sectorCount: 8)]).status == .ok)
        let data = try disk.read(sector: 0, count: 8192).data
        let zeroed = [(512..<1536), (4096..<8192)]
        #expect(data.indices.allSatisfy { index in data[index] == (zeroed.contains { $0.contains(index) } ? 0 : 0x5a) })
        #expect(try disk.getID().status == .ok)
        #expect(try disk.perform(BlockRequestKind(rawValue: 77)).status == .unsupported)
        #expect(try disk.read(sector: UInt64(Self.diskSize / 512), count: 512).status == .ioError)
    }

    @Test(arguments: [
        DescriptorLayout.plain, .indirect,
        DescriptorLayout(readablePieces: [3, 12, 1, 1000, 24], writablePieces: [1]),
        DescriptorLayout(readablePieces: [1040], isIndirect: true),
    ])
    func takesAnyLayoutOfAWrite(layout: DescriptorLayout) throws {
        let daemon = try StorageDaemon(image: makeImage(), in: directory.value)
        var rig = try Rig(connectingTo: daemon.socketPath)
        var disk = rig.makeDriver()
        let bytes = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 11) }
        #expect(try disk.write(bytes, sector: 4, layout: layout).status == .ok)
        let cut = DescriptorLayout(writablePieces: [1, 511, 513], isIndirect: layout.isIndirect)
        let result = try disk.read(sector: 4, count: 1024, layout: cut)
        #expect(result.status == .ok)
        #expect(result.data == bytes)
    }

    @Test func buffersMayCrossRegions() throws {
        let daemon = try StorageDaemon(image: makeImage(), in: directory.value)
        var frontend = try Frontend.connect(to: daemon.socketPath)
        // Two files that follow each other in guest addresses, a gap, and one that begins inside its file.
        let memory = try GuestMemory([
            .init(guestAddress: 0, size: 1 << 20), .init(guestAddress: 1 << 20, size: 1 << 20),
            .init(guestAddress: 1 << 32, size: 1 << 20, fileOffset: 8192),
        ])
        var allocator = GuestAllocator(memory.regions[2])
        let endpoint = try QueueEndpoint(memory: memory, ring: SplitRing(size: 64, in: &allocator))
        try frontend.start(memory, [endpoint])
        let driver = DriverQueue(endpoint, usesEventIndex: frontend.usesEventIndex)
        var disk = BlockDriver(driver, bufferSize: 4096, in: &allocator)
        disk.readableAddress = (1 << 20) - 700
        let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        #expect(try disk.write(bytes, sector: 16).status == .ok)
        disk.readableAddress = 4096
        disk.writableAddress = (1 << 20) - 1234
        #expect(try disk.read(sector: 16, count: 4096).data == bytes)
    }

    @Test(arguments: [(1, false, false), (4, false, true), (4, true, false)])
    func verifiesEverySector(queueCount: Int, threadPerQueue: Bool, overlapping: Bool) throws {
        let daemon = try StorageDaemon(image: makeImage(), queueCount: queueCount, in: directory.value)
        var rig = try Rig(connectingTo: daemon.socketPath, queueCount: queueCount)
        var options = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<8192)
        options.threadPerQueue = threadPerQueue
        options.overlapping = overlapping
        options.chainLayout = overlapping ? .indirect : .direct
        options.requestLimit = 20_000
        let report = try rig.runLoad(options)
        #expect(report.isClean, "\(report)")
        #expect(report.requests >= 20_000)
        for operation in LoadOperation.allCases { #expect(report[operation].requests > 0, "\(operation)") }
        try rig.frontend.stop()
    }

    @Test func noticesAnImageThatChangesBehindItsBack() throws {
        let image = try makeImage()
        let daemon = try StorageDaemon(image: image, in: directory.value)
        var rig = try Rig(connectingTo: daemon.socketPath)
        var options = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<16)
        options.weights = [0, 1, 0, 0, 0]
        options.maximumBlocks = 1
        options.requestLimit = 4_000
        let monitor = LoadMonitor(beforeSweep: {
            do throws(SystemError) {
                let sector = try TestFile.read(image, at: 5 * 512, count: 512)
                try TestFile.write([sector[300] ^ 1], to: image, at: 5 * 512 + 300)
                try TestFile.write(sector, to: image, at: 6 * 512)
                try TestFile.write(sector, to: image, at: 7 * 512)
                try TestFile.write([UInt8](repeating: 0, count: 512), to: image, at: 8 * 512)
            } catch {
                Issue.record("\(error)")
            }
        })
        let report = try rig.runLoad(options, monitor: monitor)
        #expect(report.mismatches(.corrupt) == 1, "\(report)")
        #expect(report.mismatches(.misdirected) == 2, "\(report)")
        #expect(report.mismatches(.lost) == 1, "\(report)")
        #expect(report.mismatches == 4, "\(report)")
    }

    /// With nothing in flight: this back-end keeps no log of requests (it does not offer INFLIGHT_SHMFD).
    @Test func goesOnWithTheNextBackend() throws {
        let image = try makeImage()
        var daemon = try StorageDaemon(image: image, queueCount: 2, in: directory.value)
        var rig = try Rig(connectingTo: daemon.socketPath, queueCount: 2)
        var options = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<1024)
        options.requestLimit = 1000
        for _ in 0..<3 {
            let report = try rig.runLoad(options)
            #expect(report.isClean, "\(report)")
            daemon.program.send(signal: 9)
            #expect(daemon.program.wait(milliseconds: 10_000) == .killed(signal: 9))
            try TestFile.remove(daemon.socketPath)
            daemon = try StorageDaemon(image: image, queueCount: 2, in: directory.value)
            try rig.frontend.reconnect()
            options.initialContent = .unknown
        }
    }

    @Test func goesOnAfterAStop() throws {
        let daemon = try StorageDaemon(image: makeImage(), queueCount: 2, in: directory.value)
        var rig = try Rig(connectingTo: daemon.socketPath, queueCount: 2)
        var options = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<1024)
        options.requestLimit = 1000
        #expect(try rig.runLoad(options).isClean)
        let bases = try rig.frontend.stop()
        try rig.frontend.start(rig.memory, rig.endpoints, bases: bases)
        options.initialContent = .unknown
        let report = try rig.runLoad(options)
        #expect(report.isClean, "\(report)")
    }
}
