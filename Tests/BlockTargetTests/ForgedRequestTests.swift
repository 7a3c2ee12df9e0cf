import BlockTarget
import Platform
import SimulationKit
import Telemetry
import Testing
import Uring
import Virtio

/// Requests that were put together by chance, most with something wrong in them. What must hold is in `DiskTrial`.
@Suite("Forged requests")
struct ForgedRequestTests {
    /// Requests for each disk; all together 140 000. What the kinds of rings differ in is less than what they share.
    static func count(_ kind: VirtqueueKind) -> Int { kind == .split ? 12_500 : 5_000 }

    /// After all that, the device still does what it should.
    static func serves<Backend: StorageBackend & ~Copyable>(_ trial: DiskTrial<Backend>) throws -> Bool {
        let address = RequestForge.placements[0].guestAddress
        trial.guest.write([UInt8](repeating: 0, count: 16), at: address)
        let chain = [
            Descriptor(address: address, length: 16, flags: 1, next: 1),
            Descriptor(address: address + 0x100, length: 513, flags: 2, next: 0),
        ]
        if trial.guest.isPacked {
            trial.guest.makeAvailable(chain, id: 0)
        } else {
            for (index, descriptor) in chain.enumerated() { trial.guest.setDescriptor(descriptor, at: index) }
            trial.guest.makeAvailable(0)
        }
        let settled = trial.disk.settle()
        let used = try trial.guest.takeUsed()
        return settled && used == UsedElement(head: 0, length: 513) && trial.guest.read(1, at: address + 0x300) == [ok]
    }

    @Test(
        "a disk in memory answers every one, writes nothing else, marks what it writes, and goes on", arguments: 0..<4,
        VirtqueueKind.allCases)
    func memory(round: Int, kind: VirtqueueKind) throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        print("forged requests in memory, \(kind): seed \(seed)")
        var random = SeededRandom(seed: seed)
        var disk = Disks.description(isReadOnly: round == 3)
        disk.sectors = 64
        let features = round == 2 ? disk.features & ~(1 << 28) : disk.features
        let trial = try DiskTrial(
            MemoryBackend(try MemoryDisk(bytes: 32768)), disk, queueSize: [2, 16, 64, 100][round], features: features,
            writesThrough: false, isPacked: kind == .packed)
        if round > 0 { try trial.logWrites() }
        var sent = 0
        for _ in 0..<Self.count(kind) { sent += trial.send(&random) }
        trial.finish()
        #expect(trial.disk.queues[0].counts.operations == UInt64(sent))
        #expect(!trial.disk.queues[0].isBroken)
        #expect(try Self.serves(trial))
    }

    @Test(
        "a disk on a storage that misbehaves answers every one, writes nothing else, marks what it writes, and goes on",
        arguments: 0..<4, VirtqueueKind.allCases)
    func storage(round: Int, kind: VirtqueueKind) throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        print("forged requests on a storage, \(kind): seed \(seed)")
        var random = SeededRandom(seed: seed)
        let storage = SimulatedStorage(bytes: pattern(32768), seed: seed)
        storage.order = .random
        storage.directAlignment = [(1, 1), (512, 4), (512, 512), (4096, 512)][round]
        storage.outcome = { operation, random in
            switch random.below(16) {
            case 0: .short(UInt64(random.below(Int(operation.length) + 1)))
            case 1: .fails(.wouldBlock)
            case 2: .fails(.inputOutput)
            default: .complete
            }
        }
        var disk = Disks.description()
        disk.sectors = 64
        let access = ImageAccess(
            file: SimulatedStorage.directFile, unalignedFile: SimulatedStorage.bufferedFile,
            offsetAlignment: storage.directAlignment.offset, memoryAlignment: storage.directAlignment.memory)
        let trial = try DiskTrial(
            FileBackend(access, engine: SimulatedEngine(storage)), disk, queueSize: 64, features: disk.features,
            writesThrough: round % 2 == 1, isPacked: kind == .packed)
        if round > 1 { try trial.logWrites() }
        var sent = 0
        for _ in 0..<Self.count(kind) {
            storage.clearHistory()
            sent += trial.send(&random)
        }
        trial.finish()
        #expect(trial.disk.queues[0].counts.operations == UInt64(sent))
        #expect(!trial.disk.queues[0].isBroken)
        #expect(storage.absurdities == 0)
        storage.outcome = { _, _ in .complete }
        #expect(try Self.serves(trial))
    }
}
