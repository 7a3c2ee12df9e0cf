import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser

/// A disk that gets another size while it is served.
@Suite(.serialized) struct ResizeTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private func resize(_ path: String, to bytes: Int) throws {
        let result = unsafe truncate(path, bytes)
        #expect(result == 0)
    }

    /// As a program does that has the file open: it closes it in the end.
    private func resizeAndClose(_ path: String, to bytes: Int) throws {
        let fd = try TestFile.openForAppending(path)
        #expect(ftruncate(fd.number, bytes) == 0)
    }

    /// The front-end is told, and takes its time to say so.
    private func expectAnnouncement(_ requests: inout BackendRequests) throws {
        let request = try #require(try requests.next(within: 20_000))
        #expect(request.kind.rawValue == 2)
        #expect(request.flags.contains(.needReply))
        try requests.acknowledge(request)
    }

    @Test func `a file that has grown is a disk that has grown, by itself, in all queues`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        let worker = try WorkerProcess(["--blk-file=\(image)", "--queues=4", "--threads=2"], in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath, queueCount: 4)
        var requests = try rig.frontend.takeBackendRequests()
        var disk = rig.makeDriver()
        let bytes = [UInt8](repeating: 0x5a, count: 4096)
        #expect(try disk.write(bytes, sector: 2048).status == .ioError)
        for size in [2 << 20, 4 << 20] {
            try resizeAndClose(image, to: size)
            try expectAnnouncement(&requests)
            #expect(try rig.frontend.readBlockConfiguration().capacity == UInt64(size / 512))
            let last = UInt64(size / 512 - 8)
            for endpoint in rig.endpoints.dropFirst() {
                let queue = DriverQueue(endpoint, usesEventIndex: rig.frontend.usesEventIndex)
                if size == 2 << 20 {
                    var other = BlockDriver(queue, bufferSize: 4096, in: &rig.allocator)
                    #expect(try other.write(bytes, sector: last).status == .ok)
                }
            }
            #expect(try disk.write(bytes, sector: last).status == .ok)
            #expect(try disk.read(sector: last, count: 4096).data == bytes)
            #expect(try disk.write(bytes, sector: last + 8).status == .ioError)
        }
        try rig.frontend.stop()
    }

    @Test func `SIGHUP makes a worker look, and announce in any case`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        let worker = try WorkerProcess(["--blk-file=\(image)"], in: directory.value)
        let rig = try Rig(connectingTo: worker.socketPath)
        var requests = try rig.frontend.takeBackendRequests()
        // Nobody opens the file: there is nothing that would tell.
        try resize(image, to: 3 << 20)
        worker.program.send(signal: SIGHUP)
        try expectAnnouncement(&requests)
        #expect(try rig.frontend.readBlockConfiguration().capacity == 6144)
        worker.program.send(signal: SIGHUP)
        try expectAnnouncement(&requests)
    }

    @Test func `a disk does not shrink unless it may`() throws {
        for mayShrink in [false, true] {
            let directory = try TemporaryDirectory()
            let image = directory.file("disk.img")
            try TestFile.create(image, count: 2 << 20)
            let worker = try WorkerProcess(
                ["--blk-file=\(image)"] + (mayShrink ? ["--allow-shrink"] : []), in: directory)
            var rig = try Rig(connectingTo: worker.socketPath)
            var requests = try rig.frontend.takeBackendRequests()
            var disk = rig.makeDriver()
            try resize(image, to: 1 << 20)
            worker.program.send(signal: SIGHUP)
            try expectAnnouncement(&requests)
            let capacity: UInt64 = mayShrink ? 2048 : 4096
            #expect(try rig.frontend.readBlockConfiguration().capacity == capacity)
            #expect(worker.program.output.contains("--allow-shrink") != mayShrink)
            #expect(try disk.read(sector: 3000, count: 512).status == .ioError)
            #expect(try disk.read(sector: 0, count: 512).status == .ok)
        }
    }

    @Test func `a block device is looked at, too`() throws {
        let image = directory.value.file("device.img")
        try TestFile.create(image, count: 1 << 20)
        let device = try LoopDevice(image, sectorSize: 512, in: directory.value)
        let worker = try WorkerProcess(["--blk-file=\(device.path)"], in: directory.value)
        let rig = try Rig(connectingTo: worker.socketPath)
        var requests = try rig.frontend.takeBackendRequests()
        try resize(image, to: 2 << 20)
        #expect(try run("losetup", ["--set-capacity", device.path], in: directory.value).code == 0)
        worker.program.send(signal: SIGHUP)
        try expectAnnouncement(&requests)
        #expect(try rig.frontend.readBlockConfiguration().capacity == 4096)
        withExtendedLifetime(device) {}
    }

    @Test func `a front-end that does not acknowledge is told once, and one that talks nonsense no more`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        let worker = try WorkerProcess(["--blk-file=\(image)"], in: directory.value)
        let rig = try Rig(connectingTo: worker.socketPath)
        do {
            var requests = try rig.frontend.takeBackendRequests()
            for _ in 0..<3 { worker.program.send(signal: SIGHUP) }
            let request = try #require(try requests.next(within: 20_000))
            worker.program.send(signal: SIGHUP)
            // Whatever came meanwhile is told once, when this one is acknowledged.
            try rig.frontend.tell(.setOwner)
            _ = try rig.frontend.readConfiguration()
            try requests.acknowledge(request)
            try expectAnnouncement(&requests)
            try requests.send([UInt8](repeating: 0xff, count: 12))
        }
        // The session goes on, with another channel if the front-end likes.
        var requests = try rig.frontend.takeBackendRequests()
        worker.program.send(signal: SIGHUP)
        try expectAnnouncement(&requests)
        #expect(try rig.frontend.readBlockConfiguration().capacity == 2048)
    }
}
