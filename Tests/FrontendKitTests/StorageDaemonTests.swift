import FrontendKit
import Platform
import TestSupport
import Testing
import VhostUser

/// A real back-end of other people's making.
@Suite struct StorageDaemonTests {
    @Test(arguments: [FrontendBehaviour.qemu, .libblkio, .spdk])
    func readsWhatItWrote(behaviour: FrontendBehaviour) throws {
        let directory = try TemporaryDirectory()
        let image = directory.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        let daemon = try StorageDaemon(image: image, in: directory)
        var frontend = try Frontend.connect(to: daemon.socketPath, behaviour: behaviour)
        #expect(try frontend.readBlockConfiguration().capacity == 2048)
        let memory = try GuestMemory(size: 1 << 20)
        var allocator = GuestAllocator(memory.regions[0])
        let endpoint = try QueueEndpoint(memory: memory, ring: SplitRing(size: 128, in: &allocator))
        let driver = DriverQueue(endpoint, usesEventIndex: frontend.usesEventIndex)
        var disk = BlockDriver(driver, bufferSize: 65536, in: &allocator)
        try frontend.start(memory, [endpoint])
        let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        #expect(try disk.write(bytes, sector: 8).status == .ok)
        let result = try disk.read(sector: 8, count: 4096)
        #expect(result.status == .ok)
        #expect(result.data == bytes)
        #expect(try frontend.stop() == [2])
    }
}
