import CLinux
import FrontendKit
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing
import VhostUser
import Virtio

/// Guests and front-ends that mean harm: whatever they do, the worker lives and serves the next one.
@Suite(.serialized) struct HostileTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private static let negotiation: [FrontendMessage] = [
        .setOwner, .setProtocolFeatures([.replyAck, .memorySlots, .mq, .configuration]),
        .setFeatures(VirtioFeatures.ring | VhostFeatures.protocolFeatures),
    ]

    /// The worker serves an honest driver and has not died meanwhile.
    private func expectService(of worker: borrowing WorkerProcess) throws {
        var rig = try Rig(connectingTo: worker.socketPath)
        var disk = rig.makeDriver()
        #expect(try disk.write([UInt8](repeating: 7, count: 512), sector: 3).status == .ok)
        #expect(rig.frontend.backendProcess == worker.program.pid)
        try rig.frontend.stop()
    }

    @Test func `memory may reach to the last guest address`() throws {
        let worker = try WorkerProcess(["--backend=null"], in: directory.value)
        for size in [0x10000, 0x7001] as [UInt64] {
            let frontend = try Frontend.connect(to: worker.socketPath, behaviour: .libblkio)
            let file = try makeMemoryFile(name: "end of memory", count: 0x10000)
            let region = MemoryRegion(guestAddress: 0 &- size, size: size, frontendAddress: 0x4000_0000, fileOffset: 0)
            try frontend.tell(.addMemoryRegion(region), fds: [file.number], changesMemory: true)
            try frontend.tell(.removeMemoryRegion(region), changesMemory: true)
        }
        try expectService(of: worker)
    }

    @Test func `what is no eventfd is refused, for each of the three signals`() throws {
        let worker = try WorkerProcess(["--backend=null"], in: directory.value)
        let file = VringFile(index: 0, hasFD: true)
        let pair = try UnixStreamPair()
        let image = try makeMemoryFile(name: "no eventfd", count: 4096)
        for number in [pair.first.fd.number, image.number] {
            for message in [FrontendMessage.setVringKick(file), .setVringCall(file), .setVringError(file)] {
                let frontend = try Frontend.connect(to: worker.socketPath, behaviour: .libblkio)
                #expect(throws: FrontendError.self) { try frontend.tell(message, fds: [number]) }
                #expect(throws: Never.self) { try frontend.tell(.setOwner) }
            }
        }
        try expectService(of: worker)
    }

    @Test func `a call eventfd whose counter is full holds nobody up`() throws {
        let worker = try WorkerProcess(["--backend=null", "--queues=2"], in: directory.value)
        do {
            var rig = try Rig(connectingTo: worker.socketPath, queueCount: 2)
            let call = rig.endpoints[0].call.fd.number
            // Blocking, as far as its sender can say, and full.
            let blocking = OwnedFD(owning: eventfd(0, 0))
            var full = UInt64.max - 1
            #expect(unsafe write(blocking.number, &full, 8) == 8)
            try rig.frontend.tell(.setVringCall(VringFile(index: 0, hasFD: true)), fds: [blocking.number])
            var disk = rig.makeDriver()
            // Its interrupt is lost; the answer is there.
            disk.timeout = 200
            _ = try? disk.flush()
            try rig.frontend.tell(.setVringCall(VringFile(index: 0, hasFD: true)), fds: [call])
            try rig.frontend.stop()
        }
        try expectService(of: worker)
    }

    @Test func `a log that nobody reads any more does not end the worker`() throws {
        let pipe = try UnixStreamPair()
        let path = directory.value.file("worker.sock")
        let process = try ChildProcess(
            WorkerProcess.executable, ["--socket-path=\(path)", "--backend=null"], output: pipe.second.fd)
        _ = waitForInput(pipe.first.fd.number)
        let reader = dup(pipe.first.fd.number)
        _ = close(reader)
        _ = shutdown(pipe.first.fd.number, Int32(SHUT_RDWR))
        for _ in 0..<3 {
            var rig = try Rig(connectingTo: path)
            var disk = rig.makeDriver()
            #expect(try disk.flush().status == .ok)
            #expect(rig.frontend.backendProcess == process.pid)
        }
    }

    @Test func `a ring without event index may end where its memory ends`() throws {
        let worker = try WorkerProcess(["--backend=null"], in: directory.value)
        var behaviour = FrontendBehaviour.spdk
        behaviour.features &= ~VirtioFeatures.eventIndex
        for last in ["available", "used"] {
            var frontend = try Frontend.connect(to: worker.socketPath, behaviour: behaviour)
            let size = 128
            let end = 0x20_0000
            let memory = try FrontendKit.GuestMemory(size: end)
            // Without used_event and avail_event.
            let available = last == "available" ? end - (4 + 2 * size) : 0x2000
            let used = last == "used" ? end - (4 + 8 * size) : 0x3000
            let ring = SplitRing(
                size: size, descriptorTable: 0x1000, availableRing: UInt64(available), usedRing: UInt64(used))
            let endpoint = try QueueEndpoint(memory: memory, ring: ring)
            try frontend.start(memory, [endpoint])
            let base = try frontend.stop()
            #expect(base == [0])
        }
    }

    @Test func `a queue that is refused leaves no descriptor behind`() throws {
        let worker = try WorkerProcess(["--backend=null"], in: directory.value)
        do {
            let rig = try Rig(connectingTo: worker.socketPath, behaviour: FrontendBehaviour.libblkio.withPackedRings)
            let file = VringFile(index: 0, hasFD: true)
            // The ring has no such place.
            #expect(throws: FrontendError.self) {
                try rig.frontend.tell(.setVringBase(VringState(index: 0, value: 0x7fff_7fff)))
            }
            let before = worker.descriptors
            for _ in 0..<20 {
                let event = try EventFD()
                try rig.frontend.tell(.setVringCall(file), fds: [event.fd.number])
                #expect(throws: FrontendError.self) {
                    try rig.frontend.tell(.setVringKick(file), fds: [rig.endpoints[0].kick.fd.number])
                }
            }
            let after = worker.descriptors
            #expect(after.count == before.count, "\(before), then \(after)")
        }
        try expectService(of: worker)
    }

    @Test(arguments: [["--backend=null"], ["--backend=memory", "--size=8M"], ["FILE"]], RingKind.allCases)
    func `a guest that scribbles over its rings and requests while they are served`(
        storage: [String], kind: RingKind
    ) throws {
        var options = storage
        if storage == ["FILE"] {
            let image = directory.value.file("disk.img")
            try TestFile.create(image, count: 8 << 20)
            options = ["--blk-file=\(image)", "--cache=buffered"]
        }
        let worker = try WorkerProcess(options + ["--queues=4", "--threads=2"], in: directory.value)
        let seed = makeSeed()
        for round in 0..<6 {
            var rig = try Rig(
                connectingTo: worker.socketPath, behaviour: kind.behaviour, queueCount: 4,
                queueSize: [256, 2, 100][round % 3])
            let scribblers = try (0..<3).map { index in
                try Scribbler(
                    rig.endpoints, seed: seed &+ UInt64(round * 3 + index), makesAvailable: index == 0)
            }
            for scribbler in scribblers { scribbler.finish() }
            // Whatever has become of the rings, they can be stopped, and started with memory that is moved meanwhile.
            if round % 2 == 0 {
                try rig.frontend.stop()
            }
            #expect(rig.frontend.backendProcess == worker.program.pid, "seed \(seed)")
        }
        try expectService(of: worker)
    }

    @Test func `rings of one descriptor, and 64 of 1024`() throws {
        let worker = try WorkerProcess(
            ["--backend=memory", "--size=64M", "--queues=64", "--threads=2"], in: directory.value)
        do {
            var rig = try Rig(connectingTo: worker.socketPath, queueSize: 1)
            var disk = rig.makeDriver()
            for sector in 0..<100 as Range<UInt64> {
                let bytes = [UInt8](repeating: UInt8(sector), count: 512)
                #expect(try disk.write(bytes, sector: sector, layout: .indirect).status == .ok)
                #expect(try disk.read(sector: sector, count: 512, layout: .indirect).data == bytes)
            }
            try rig.frontend.stop()
        }
        var rig = try Rig(connectingTo: worker.socketPath, queueCount: 64, queueSize: 1024, memorySize: 256 << 20)
        var load = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<65536)
        load.requestLimit = 20_000
        load.initialContent = .unknown
        let report = try rig.runLoad(load)
        #expect(report.isClean, "\(report)")
        try rig.frontend.stop()
    }

    @Test func `memory, signals, cache and queues change under load, and nothing is lost`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 32 << 20)
        let worker = try WorkerProcess(["--blk-file=\(image)", "--queues=2", "--threads=2"], in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath, queueCount: 2, memorySize: 64 << 20)
        var options = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<65536)
        options.requestLimit = 10_000
        options.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
        let load = VerifiedLoad(
            rig.endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: options, in: &rig.allocator)
        let outcome = Outcome()
        let thread = try JoinableThread(name: "load") {
            let report = Result { try load.run() }
            outcome.value.withLock { $0 = report }
        }
        let regions = rig.memory.regions
        var changes = 0
        while outcome.value.withLock({ $0 == nil }) {
            changes += 1
            try rig.frontend.tell(
                .setMemoryTable(regions.map(\.description)), fds: regions.map { $0.file.number }, changesMemory: true)
            for (index, endpoint) in rig.endpoints.enumerated() {
                let file = VringFile(index: UInt8(index), hasFD: true)
                try rig.frontend.setEnabled(false, queue: index)
                try rig.frontend.tell(.setVringCall(file), fds: [endpoint.call.fd.number])
                try rig.frontend.setEnabled(true, queue: index)
                try rig.frontend.tell(.setVringKick(file), fds: [endpoint.kick.fd.number])
            }
            let writeback = ConfigurationAccess(offset: 32, bytes: [UInt8(changes % 2)])
            try rig.frontend.tell(.setConfiguration(writeback))
        }
        thread.join()
        let report = try #require(outcome.value.withLock { $0 }).get()
        #expect(report.isClean, "\(report)")
        #expect(changes > 1)
        try rig.frontend.stop()
    }

    @Test func `the connection is lost under load, again and again`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 16 << 20)
        let worker = try WorkerProcess(["--blk-file=\(image)", "--queues=2", "--threads=2"], in: directory.value)
        let seed = makeSeed()
        for round in 0..<20 {
            let rig = try Rig(connectingTo: worker.socketPath, queueCount: 2)
            for endpoint in rig.endpoints {
                var queue = DriverQueue(endpoint, usesEventIndex: rig.frontend.usesEventIndex)
                var random = SeededGenerator(seed: seed &+ UInt64(round))
                fill(&queue, memory: rig.memory, &random)
            }
        }
        try expectService(of: worker)
    }

    /// Writes of all sizes, at any alignment, none of them waited for.
    private func fill(_ queue: inout DriverQueue, memory: FrontendKit.GuestMemory, _ random: inout SeededGenerator) {
        memory.write([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], at: 0x10_0000)
        for request in 0..<80 {
            let length = UInt32.random(in: 1...256, using: &random) * 512
            let address = 0x20_0000 + UInt64.random(in: 0..<4096, using: &random)
            let head = request * 3
            queue.write(Descriptor(address: 0x10_0000, length: 16, flags: .next, next: UInt16(head + 1)), at: head)
            queue.write(
                Descriptor(address: address, length: length, flags: .next, next: UInt16(head + 2)), at: head + 1)
            queue.write(Descriptor(address: 0x10_1000, length: 1, flags: .deviceWrites), at: head + 2)
            queue.stage(head: head)
        }
        queue.publish()
        _ = queue.kick()
    }
}

/// What a thread has come to.
private final class Outcome: Sendable {
    let value = Mutex<Result<LoadReport, any Error>?>(nil)
}
