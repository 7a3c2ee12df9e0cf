import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser
import Virtio

/// A front-end that takes memory away which it has shared: it loses its connection, and nobody else anything.
@Suite(.serialized) struct SharedMemoryTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    /// What the front-end shortens.
    enum Loss: String, CaseIterable {
        case rings
        case buffers
        case inflightLog
        case dirtyLog

        /// The thread sanitizer carries out an atomic read-modify-write in its own library, with a lock held that the
        /// signal's handler needs as well: the worker would hang in the sanitizer. A dirty log is marked so.
        static var testable: [Loss] {
            guard unsafe getenv("TSAN_OPTIONS") != nil else { return allCases }
            print("left out: a dirty log that goes: the thread sanitizer hangs when an atomic OR gets SIGBUS")
            return allCases.filter { $0 != .dirtyLog }
        }
    }

    @Test(arguments: Loss.testable, [["--backend=memory", "--size=8M"], ["FILE", "--cache=direct"]])
    func `memory that goes under load costs its own connection`(loss: Loss, storage: [String]) throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 8 << 20)
        let options = storage.map { $0 == "FILE" ? "--blk-file=\(image)" : $0 }
        let worker = try WorkerProcess(options, in: directory.value)
        for round in 0..<3 {
            var frontend = try Frontend.connect(to: worker.socketPath)
            let memory = try FrontendKit.GuestMemory([
                .init(guestAddress: 0, size: 1 << 20), .init(guestAddress: 1 << 30, size: 4 << 20),
            ])
            var allocator = GuestAllocator(memory.regions[0])
            let endpoint = try QueueEndpoint(memory: memory, ring: SplitRing(size: 256, in: &allocator))
            try frontend.start(memory, [endpoint])
            let log = try DirtyBitmap(for: memory)
            try frontend.startLogging(log)
            var queue = DriverQueue(endpoint, usesEventIndex: frontend.usesEventIndex)
            let header = allocator.allocate(16, alignment: 4096)
            let status = allocator.allocate(1)
            memory.write([UInt8](repeating: 0, count: 16), at: header)
            for request in 0..<80 {
                let head = request * 3
                let buffer = 1 << 30 + UInt64(request) * 0x8000
                queue.write(Descriptor(address: header, length: 16, flags: .next, next: UInt16(head + 1)), at: head)
                queue.write(
                    Descriptor(address: buffer, length: 0x8000, flags: [.next, .deviceWrites], next: UInt16(head + 2)),
                    at: head + 1)
                queue.write(Descriptor(address: status, length: 1, flags: .deviceWrites), at: head + 2)
                queue.stage(head: head)
            }
            queue.publish()
            // From here on nothing here touches that memory.
            let file =
                switch loss {
                case .rings: memory.regions[0].file.number
                case .buffers: memory.regions[1].file.number
                case .inflightLog: frontend.inflightFileNumber
                case .dirtyLog: log.file.number
                }
            #expect(ftruncate(file, 0) == 0)
            endpoint.kick.signal()
            let isClosed = frontend.isClosedByBackend(within: 20_000)
            #expect(isClosed, "round \(round)")
        }
        var rig = try Rig(connectingTo: worker.socketPath)
        var disk = rig.makeDriver()
        #expect(try disk.write([UInt8](repeating: 7, count: 512), sector: 3).status == .ok)
        #expect(rig.frontend.backendProcess == worker.program.pid)
        try rig.frontend.stop()
        let lines = worker.program.output.split(separator: "\n").filter { $0.contains("has taken away memory") }
        #expect(lines.count == 3, "\(worker.program.output)")
    }

    @Test func `an eventfd that was made blocking again and filled holds a loop up for a moment only`() throws {
        let worker = try WorkerProcess(["--backend=null"], in: directory.value)
        do {
            var rig = try Rig(connectingTo: worker.socketPath)
            let blocking = try EventFD()
            try rig.frontend.tell(.setVringCall(VringFile(index: 0, hasFD: true)), fds: [blocking.fd.number])
            // The worker has made it non-blocking for both by the time that it answers.
            _ = try rig.frontend.readConfiguration()
            let flags = fcntl(blocking.fd.number, F_GETFL)
            #expect(fcntl(blocking.fd.number, F_SETFL, flags & ~O_NONBLOCK) == 0)
            var full = UInt64.max - 1
            blocking.clear()
            #expect(unsafe write(blocking.fd.number, &full, 8) == 8)
            var disk = rig.makeDriver()
            disk.timeout = 500
            _ = try? disk.flush()
            // The loop waits in its interrupt, until somebody wants something of it.
            try rig.frontend.stop()
        }
        var rig = try Rig(connectingTo: worker.socketPath)
        var disk = rig.makeDriver()
        #expect(try disk.flush().status == .ok)
        #expect(!worker.program.output.contains("does not answer"), "\(worker.program.output)")
        try rig.frontend.stop()
    }

    @Test func `a front-end that is refused again and again does not fill the log`() throws {
        let worker = try WorkerProcess(["--backend=null"], in: directory.value)
        let frontend = try Frontend.connect(to: worker.socketPath, behaviour: .libblkio)
        for _ in 0..<2_000 {
            #expect(throws: FrontendError.self) { try frontend.tell(.setFeatures(1)) }
        }
        let lines = worker.program.output.split(separator: "\n").count
        #expect(lines < 500, "\(lines) lines")
    }
}
