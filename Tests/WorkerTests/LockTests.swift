import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser

/// Who may use an image at the same time, and who is told not to.
@Suite(.serialized) struct LockTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())
    /// Where the second worker listens, and a third one.
    let other = TemporaryDirectoryBox(try! TemporaryDirectory())
    let third = TemporaryDirectoryBox(try! TemporaryDirectory())

    private func makeImage() throws -> String {
        let path = directory.value.file("disk.img")
        try TestFile.create(path, count: 1 << 20)
        return path
    }

    /// Runs a program with a log of its own.
    private func run(_ name: String, _ arguments: [String]) throws -> (code: Int32, output: String) {
        try TestSupport.run(name, arguments, in: try TemporaryDirectory())
    }

    /// A worker whose image is in use starts all the same: its guest may be about to move here.
    /// A worker whose image is in use starts all the same: its guest may be about to move here.
    private func startWorker(
        _ image: String, _ more: [String] = [], in place: TemporaryDirectoryBox
    ) throws -> WorkerProcess {
        unsafe unlink(place.value.file("worker.sock"))
        return try WorkerProcess(["--blk-file=\(image)"] + more, in: place.value)
    }

    /// Whether the worker at a socket lets a queue start. One that does not says why and ends the connection.
    private func starts(at socket: String) -> Bool {
        do {
            var rig = try Rig(connectingTo: socket)
            _ = try rig.frontend.readConfiguration()
            // The answer comes when the image has been given up.
            try rig.frontend.stop()
            return true
        } catch {
            return false
        }
    }

    @Test func `a second worker serves nothing while the first does, and not a moment longer`() throws {
        let image = try makeImage()
        var first = try WorkerProcess(["--blk-file=\(image)"], in: directory.value)
        var rig = try Rig(connectingTo: first.socketPath)
        _ = try rig.frontend.readConfiguration()
        for more in [[], ["--read-only"], ["--cache=buffered"]] {
            let second = try startWorker(image, more, in: other)
            #expect(second.program.output.contains("Another worker serves it"), "\(second.program.output)")
            #expect(!starts(at: second.socketPath))
            first.program.send(signal: SIGKILL)
            first.program.wait(milliseconds: 10_000)
            #expect(starts(at: second.socketPath))
            first = try startWorker(image, in: directory)
            rig = try Rig(connectingTo: first.socketPath)
            _ = try rig.frontend.readConfiguration()
        }
        var disk = rig.makeDriver()
        #expect(try disk.write([UInt8](repeating: 7, count: 512), sector: 0).status == .ok)
    }

    @Test func `an image changes hands when the last queue has stopped, in both directions`() throws {
        let image = try makeImage()
        let first = try WorkerProcess(["--blk-file=\(image)", "--queues=2"], in: directory.value)
        let second = try startWorker(image, ["--queues=2"], in: other)
        do {
            var source = try Rig(connectingTo: first.socketPath, queueCount: 2)
            var disk = source.makeDriver()
            #expect(try disk.write([UInt8](repeating: 1, count: 512), sector: 0).status == .ok)
            #expect(!starts(at: second.socketPath))
            // One queue is not the last one.
            _ = try source.frontend.ask(.getVringBase(VringState(index: 1, value: 0)))
            #expect(!starts(at: second.socketPath))
            try source.frontend.stop()
        }
        do {
            var destination = try Rig(connectingTo: second.socketPath, queueCount: 2)
            var disk = destination.makeDriver()
            #expect(try disk.read(sector: 0, count: 512).data == [UInt8](repeating: 1, count: 512))
            #expect(try disk.write([UInt8](repeating: 2, count: 512), sector: 0).status == .ok)
            #expect(!starts(at: first.socketPath))
            try destination.frontend.stop()
        }
        var back = try Rig(connectingTo: first.socketPath, queueCount: 2)
        var disk = back.makeDriver()
        #expect(try disk.read(sector: 0, count: 512).data == [UInt8](repeating: 2, count: 512))
    }

    @Test func `readers share an image`() throws {
        let image = try makeImage()
        let first = try WorkerProcess(["--blk-file=\(image)", "--read-only"], in: directory.value)
        let second = try startWorker(image, ["--read-only"], in: other)
        let writer = try startWorker(image, in: third)
        var reader = try Rig(connectingTo: first.socketPath)
        #expect(starts(at: second.socketPath))
        #expect(!starts(at: writer.socketPath))
        try reader.frontend.stop()
        #expect(starts(at: writer.socketPath))
    }

    @Test func `QEMU's programs keep off an image that is served, and we off theirs`() throws {
        let image = try makeImage()
        var worker = try WorkerProcess(["--blk-file=\(image)"], in: directory.value)
        do {
            var rig = try Rig(connectingTo: worker.socketPath)
            _ = try rig.frontend.readConfiguration()
            let result = try run("qemu-img", ["resize", "-f", "raw", image, "2M"])
            #expect(result.code != 0)
            #expect(result.output.contains("lock"), "\(result.output)")
            try rig.frontend.stop()
        }
        #expect(try run("qemu-img", ["resize", "-f", "raw", image, "2M"]).code == 0)
        let daemon = try StorageDaemon(image: image, in: directory.value)
        #expect(!starts(at: worker.socketPath))
        worker.program.stop()
        #expect(worker.program.output.contains("Another program uses it"), "\(worker.program.output)")
        _ = consume daemon
    }
}
