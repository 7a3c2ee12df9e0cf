import FrontendKit
import Glibc
import KillKit
import Platform
import TestSupport
import Testing

/// A worker that starts while the storage still carries out requests of one that was killed.
@Suite(.serialized) struct FenceTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private static let writeCount = 8
    private static let writeBytes = 256 << 10

    /// A loop device, writes that a killed worker has left on it and that would take half a minute, and the front-end
    /// that asked for them.
    private struct Orphans: ~Copyable {
        let device: LoopDevice
        let throttle: WriteThrottle
        var rig: Rig
        var queue: BlockQueue
        /// Where the data of requests lie. Those of the dead worker go on being read by the kernel, so each write has a
        /// place of its own.
        var buffer: UInt64
        /// What the device had written before the first of them.
        let writtenBefore: Int

        /// Whoever was to wait for the writes has been seen to: the rest lands within two seconds.
        func hurry() throws { try throttle.change(device, bytes: 1 << 20) }

        mutating func write(_ byte: UInt8) {
            buffer = rig.allocator.allocate(FenceTests.writeCount * FenceTests.writeBytes, alignment: 4096)
            rig.memory.fill(byte, count: FenceTests.writeCount * FenceTests.writeBytes, at: buffer)
            submit(.write)
        }

        /// Fills all of the range that is written, in requests of 256 KiB.
        mutating func submit(_ kind: BlockRequestKind) {
            for index in 0..<FenceTests.writeCount {
                let offset = UInt64(index * FenceTests.writeBytes)
                queue.submit(
                    BlockRequest(
                        kind, sector: offset / 512, dataAddress: buffer + offset,
                        dataLength: UInt32(FenceTests.writeBytes), token: UInt64(index)))
            }
            queue.publish()
        }

        mutating func expectCompletions() throws {
            for _ in 0..<FenceTests.writeCount {
                var completion = try queue.nextCompletion()
                while completion == nil {
                    let hasCome = queue.waitForCompletion(milliseconds: 60_000)
                    try #require(hasCome, "a request was lost")
                    completion = try queue.nextCompletion()
                }
                #expect(completion?.status == .ok)
            }
        }

        var data: [UInt8] { rig.memory.read(FenceTests.writeCount * FenceTests.writeBytes, at: buffer) }
    }

    /// - Parameter beforeDeath: called while the worker still lives.
    private func makeOrphans(beforeDeath: (String) throws -> Void = { _ in }) throws -> Orphans {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 8 << 20)
        let device = try LoopDevice(image, in: directory.value)
        let throttle = try WriteThrottle(device, bytes: 1 << 16)
        var worker = try WorkerProcess(["--blk-file=\(device.path)"], in: directory.value)
        try throttle.hold(worker.program.pid)
        var rig = try Rig(connectingTo: worker.socketPath)
        let driver = DriverQueue(rig.endpoints[0], usesEventIndex: rig.frontend.usesEventIndex)
        let queue = BlockQueue(driver, depth: Self.writeCount, layout: .direct, maximumPieces: 1, in: &rig.allocator)
        var orphans = Orphans(
            device: device, throttle: throttle, rig: rig, queue: queue, buffer: 0,
            writtenBefore: device.bytesWritten)
        orphans.write(0x0a)
        while WorkerLook.operations(ofProcess: worker.program.pid).running < Self.writeCount { pause(milliseconds: 1) }
        try beforeDeath(device.path)
        worker.program.send(signal: SIGKILL)
        worker.program.wait(milliseconds: 10_000)
        try TestFile.remove(worker.socketPath)
        return orphans
    }

    private func startWorker(
        _ arguments: [String], in own: borrowing TemporaryDirectory
    ) throws -> Program {
        try Program(
            WorkerProcess.executable, ["--socket-path=\(directory.value.file("worker.sock"))"] + arguments, in: own)
    }

    /// Waits until a program has printed something.
    private func wait(_ program: borrowing Program, toPrint text: String) throws {
        let end = monotonicNanoseconds() + 120_000_000_000
        while !program.output.contains(text) {
            try #require(monotonicNanoseconds() < end, "it printed only: \(program.output)")
            pause(milliseconds: 1)
        }
    }

    @Test(.enabled(if: WriteThrottle.isAvailable))
    func `no write of a dead worker lands on a newer one`() throws {
        var orphans = try makeOrphans()
        let bytes = Self.writeCount * Self.writeBytes
        // Nothing slows this one down: it would be through with its own long before the orphans.
        let own = try TemporaryDirectory()
        let successor = try startWorker(["--blk-file=\(orphans.device.path)"], in: own)
        try wait(successor, toPrint: "requests of a worker that has died")
        #expect(orphans.device.bytesWritten - orphans.writtenBefore < bytes, "all had landed before the successor came")
        try orphans.hurry()
        try wait(successor, toPrint: "listening at")
        #expect(orphans.device.bytesWritten - orphans.writtenBefore >= bytes, "it listens before the last has landed")
        let lines = successor.output.split(separator: "\n")
        let told = ["requests of a worker that has died", "is free now", "listening at"].map { text in
            lines.firstIndex { $0.contains(text) } ?? -1
        }
        #expect(told[0] >= 0 && told[0] < told[1] && told[1] < told[2], "\(lines)")

        try orphans.rig.frontend.reconnect()
        try orphans.expectCompletions()
        orphans.write(0x0b)
        try orphans.expectCompletions()
        // The orphans, the same carried out again, and the new ones: until the device has written all that there is.
        let end = monotonicNanoseconds() + 30_000_000_000
        while orphans.device.bytesWritten - orphans.writtenBefore < 3 * bytes, monotonicNanoseconds() < end {
            pause(milliseconds: 1)
        }
        orphans.submit(.read)
        try orphans.expectCompletions()
        #expect(orphans.data.allSatisfy { $0 == 0x0b })
    }

    @Test(.enabled(if: WriteThrottle.isAvailable))
    func `a worker that waits says what for, ends when asked to, and has a limit`() throws {
        let orphans = try makeOrphans()
        let path = orphans.device.path
        let own = try TemporaryDirectory()
        var first = try startWorker(["--blk-file=\(path)"], in: own)
        try wait(first, toPrint: "waiting to serve \(path): requests of a worker that has died")
        first.send(signal: SIGTERM)
        #expect(first.wait(milliseconds: 10_000) == .exited(code: 1))
        #expect(first.output.contains("Asked to end while"), "\(first.output)")
        let other = try TemporaryDirectory()
        var second = try startWorker(["--blk-file=\(path)", "--predecessor-wait=0"], in: other)
        #expect(second.wait(milliseconds: 10_000) == .exited(code: 1))
        #expect(second.output.contains("requests of a worker that has died are still under way"), "\(second.output)")
        try orphans.hurry()
        _ = consume orphans
    }

    /// A worker that was up before the other died, as the destination of a migration is, has not waited at its start.
    @Test(.enabled(if: WriteThrottle.isAvailable))
    func `a queue that starts waits a second at most, and is served when the front-end tries again`() throws {
        let own = try TemporaryDirectory()
        let socket = own.file("standby.sock")
        var standby: Program?
        let orphans = try makeOrphans { path in
            var program = try Program(
                WorkerProcess.executable, ["--socket-path=\(socket)", "--blk-file=\(path)"], in: own)
            try program.waitForFile(socket, milliseconds: 60_000)
            standby = consume program
        }
        let end = monotonicNanoseconds() + 60_000_000_000
        var refusals = 0
        while !startsQueue(at: socket) {
            refusals += 1
            try orphans.hurry()
            try #require(monotonicNanoseconds() < end, "it never served")
        }
        let output = standby?.output ?? ""
        #expect(refusals > 0, "all had landed before the queue came")
        #expect(output.contains("ms requests of a worker that has died are still under way"), "\(output)")
        let bytes = Self.writeCount * Self.writeBytes
        #expect(orphans.device.bytesWritten - orphans.writtenBefore >= bytes, "it serves before the last has landed")
        standby?.stop()
    }

    /// Whether the worker at a socket lets a queue start; one that does not ends the connection.
    private func startsQueue(at socket: String) -> Bool {
        do {
            var rig = try Rig(connectingTo: socket)
            _ = try rig.frontend.readConfiguration()
            try rig.frontend.stop()
            return true
        } catch {
            return false
        }
    }

    /// The kernel cannot end a process while one of its requests waits for a frozen file system.
    @Test func `a worker that was killed and cannot die is waited for, and named`() throws {
        let image = directory.value.file("fs.img")
        try TestFile.create(image, count: 32 << 20)
        let mounted = try MountedFileSystem(image, at: directory.value.file("mnt"))
        let disk = "\(mounted.path)/disk.img"
        try TestFile.create(disk, count: 1 << 20)
        var worker = try WorkerProcess(["--blk-file=\(disk)", "--cache=buffered"], in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath)
        let buffer = rig.allocator.allocate(4096, alignment: 4096)
        let driver = DriverQueue(rig.endpoints[0], usesEventIndex: rig.frontend.usesEventIndex)
        var queue = BlockQueue(driver, depth: 1, layout: .direct, maximumPieces: 1, in: &rig.allocator)
        try mounted.freeze()
        queue.submit(BlockRequest(.write, sector: 0, dataAddress: buffer, dataLength: 4096, token: 0))
        queue.publish()
        while WorkerLook.operations(ofProcess: worker.program.pid).running < 1 { pause(milliseconds: 1) }
        worker.program.send(signal: SIGKILL)
        try TestFile.remove(worker.socketPath)
        let named = "worker \(worker.program.pid), which has been killed, is not gone yet"
        let own = try TemporaryDirectory()
        let other = try TemporaryDirectory()
        var impatient = try startWorker(["--blk-file=\(disk)", "--predecessor-wait=1"], in: own)
        #expect(impatient.wait(milliseconds: 30_000) == .exited(code: 1))
        #expect(impatient.output.contains(named), "\(impatient.output)")
        var successor = try startWorker(["--blk-file=\(disk)"], in: other)
        try wait(successor, toPrint: named)
        mounted.thaw()
        try successor.waitForFile(directory.value.file("worker.sock"), milliseconds: 60_000)
        worker.program.wait(milliseconds: 10_000)
        try rig.frontend.reconnect()
        let hasCome = queue.waitForCompletion(milliseconds: 30_000)
        #expect(hasCome)
        let completion = try queue.nextCompletion()
        #expect(completion?.status == .ok)
        successor.stop()
    }
}
