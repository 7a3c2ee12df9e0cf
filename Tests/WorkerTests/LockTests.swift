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

    private func makeImage(count: Int = 1 << 20) throws -> String {
        let path = directory.value.file("disk.img")
        try TestFile.create(path, count: count)
        return path
    }

    /// Runs a program with a log of its own.
    private func run(_ name: String, _ arguments: [String]) throws -> (code: Int32, output: String) {
        try TestSupport.run(name, arguments, in: try TemporaryDirectory())
    }

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

    // MARK: Block devices

    private func makeDevice() throws -> LoopDevice {
        try LoopDevice(try makeImage(count: 8 << 20), in: directory.value)
    }

    /// Another node of the same device, which has locks of its own.
    private func makeSecondNode(of device: LoopDevice) throws -> String {
        let path = directory.value.file("node")
        let numbers = device.number.split(separator: ":").map(String.init)
        #expect(try run("mknod", [path, "b"] + numbers).code == 0)
        return path
    }

    /// An exclusive open, as mount(8) and other programs that know nothing of our locks do it.
    private func isClaimed(_ node: String) -> Bool {
        let number = unsafe open(node, O_RDWR | O_EXCL | O_CLOEXEC)
        if number >= 0 { close(number) }
        return number == -1 && Errno.current == .busy
    }

    /// Starts a second worker of a device while the first one serves it, which has stopped when this returns.
    private func startWorker(
        _ name: String, in place: TemporaryDirectoryBox, whileServing node: String, _ first: borrowing WorkerProcess
    ) throws -> WorkerProcess {
        var source = try Rig(connectingTo: first.socketPath)
        _ = try source.frontend.readConfiguration()
        #expect(isClaimed(node) && isClaimed(name))
        let second = try startWorker(name, in: place)
        let output = second.program.output
        #expect(output.contains("Another worker serves it, process \(first.program.pid)"), "\(output)")
        #expect(!starts(at: second.socketPath))
        try source.frontend.stop()
        return second
    }

    @Test func `a device that is served is refused under every name, and changes hands as an image does`() throws {
        let device = try makeDevice()
        let node = try makeSecondNode(of: device)
        let first = try WorkerProcess(["--blk-file=\(node)"], in: directory.value)
        for (name, place) in [(device.path, other), (node, third)] {
            let second = try startWorker(name, in: place, whileServing: node, first)
            #expect(!isClaimed(node))
            var moved = try Rig(connectingTo: second.socketPath)
            var disk = moved.makeDriver()
            #expect(try disk.write([UInt8](repeating: 3, count: 4096), sector: 0).status == .ok)
            #expect(isClaimed(node))
            #expect(!starts(at: first.socketPath))
            try moved.frontend.stop()
        }
        #expect(starts(at: first.socketPath))
        #expect(!isClaimed(node))
    }

    @Test func `readers share a device`() throws {
        let device = try makeDevice()
        let first = try WorkerProcess(["--blk-file=\(device.path)", "--read-only"], in: directory.value)
        let second = try startWorker(device.path, ["--read-only"], in: other)
        let writer = try startWorker(device.path, in: third)
        let reader = try Rig(connectingTo: first.socketPath)
        _ = try reader.frontend.readConfiguration()
        #expect(starts(at: second.socketPath))
        #expect(!starts(at: writer.socketPath))
    }

    /// It may be a worker that came by another node, and about to let go.
    @Test func `a device that another program has for itself is served when that has let go`() throws {
        let device = try makeDevice()
        let fd = OwnedFD(owning: unsafe open(device.path, O_RDWR | O_EXCL | O_CLOEXEC))
        let worker = try startWorker(device.path, in: directory)
        #expect(worker.program.output.contains("has the device for itself (O_EXCL)"), "\(worker.program.output)")
        #expect(!starts(at: worker.socketPath))
        _ = consume fd
        #expect(starts(at: worker.socketPath))
    }

    @Test func `a device that the host has mounted is refused, and the place is named`() throws {
        let device = try makeDevice()
        let mounted = try MountedFileSystem(device.path, at: directory.value.file("mnt"))
        let socket = directory.value.file("mounted.sock")
        let worker = try run(WorkerProcess.executable, ["--socket-path=\(socket)", "--blk-file=\(device.path)"])
        #expect(worker.code == 1)
        #expect(worker.output.contains("has it mounted at \(mounted.path)"), "\(worker.output)")
    }

    @Test func `who accepts leases is served`() throws {
        let image = try makeImage()
        _ = try WorkerProcess(["--blk-file=\(image)", "--allow-lease-locks"], in: directory.value)
    }
}
