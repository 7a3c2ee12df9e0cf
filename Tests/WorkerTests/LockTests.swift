import Glibc
import Platform
import TestSupport
import Testing

/// Who may use an image at the same time, and who is told not to.
@Suite(.serialized) struct LockTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private func makeImage(count: Int = 1 << 20) throws -> String {
        let path = directory.value.file("disk.img")
        try TestFile.create(path, count: count)
        return path
    }

    /// Runs a program with a log of its own.
    private func run(_ name: String, _ arguments: [String]) throws -> (code: Int32, output: String) {
        try TestSupport.run(name, arguments, in: try TemporaryDirectory())
    }

    private func secondWorker(_ image: String, _ more: [String] = []) throws -> (code: Int32, output: String) {
        let socket = directory.value.file("second.sock")
        return try run(WorkerProcess.executable, ["--socket-path=\(socket)", "--blk-file=\(image)"] + more)
    }

    @Test func `a second worker is refused while the first lives, and not a moment longer`() throws {
        let image = try makeImage()
        var first = try WorkerProcess(["--blk-file=\(image)"], in: directory.value)
        for more in [[], ["--read-only"], ["--cache=buffered"]] {
            let second = try secondWorker(image, more)
            #expect(second.code == 1)
            #expect(second.output.contains("Another worker serves it"), "\(second.output)")
        }
        first.program.send(signal: SIGKILL)
        first.program.wait(milliseconds: 10_000)
        first = try WorkerProcess(["--blk-file=\(image)"], in: try TemporaryDirectory())
    }

    @Test func `readers share an image`() throws {
        let image = try makeImage()
        let first = try WorkerProcess(["--blk-file=\(image)", "--read-only"], in: directory.value)
        let other = try TemporaryDirectory()
        _ = try WorkerProcess(["--blk-file=\(image)", "--read-only"], in: other)
        let writer = try secondWorker(image)
        #expect(writer.code == 1)
        _ = consume first
    }

    @Test func `QEMU's programs keep off an image that is served, and we off theirs`() throws {
        let image = try makeImage()
        do {
            let worker = try WorkerProcess(["--blk-file=\(image)"], in: directory.value)
            let result = try run("qemu-img", ["resize", "-f", "raw", image, "2M"])
            #expect(result.code != 0)
            #expect(result.output.contains("lock"), "\(result.output)")
            _ = consume worker
        }
        #expect(try run("qemu-img", ["resize", "-f", "raw", image, "2M"]).code == 0)
        let daemon = try StorageDaemon(image: image, in: directory.value)
        let worker = try secondWorker(image)
        #expect(worker.code == 1)
        #expect(worker.output.contains("Another program uses it"), "\(worker.output)")
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

    @Test func `a device that is served is refused under every name`() throws {
        let device = try makeDevice()
        let node = try makeSecondNode(of: device)
        let worker = try WorkerProcess(["--blk-file=\(node)"], in: directory.value)
        for name in [device.path, node] {
            let second = try secondWorker(name)
            #expect(second.code == 1)
            #expect(
                second.output.contains("Another worker serves it, process \(worker.program.pid)"), "\(second.output)")
        }
        // The kernel itself refuses what knows nothing of our locks.
        let number = unsafe open(node, O_RDWR | O_EXCL | O_CLOEXEC)
        #expect(number == -1 && Errno.current == .busy)
        _ = consume worker
    }

    @Test func `readers share a device`() throws {
        let device = try makeDevice()
        let other = try TemporaryDirectory()
        let first = try WorkerProcess(["--blk-file=\(device.path)", "--read-only"], in: directory.value)
        let second = try WorkerProcess(["--blk-file=\(device.path)", "--read-only"], in: other)
        #expect(try secondWorker(device.path).code == 1)
        _ = consume first
        _ = consume second
    }

    @Test func `a device that another program has for itself is refused after a moment`() throws {
        let device = try makeDevice()
        let fd = OwnedFD(owning: unsafe open(device.path, O_RDWR | O_EXCL | O_CLOEXEC))
        let worker = try secondWorker(device.path)
        #expect(worker.code == 1)
        #expect(worker.output.contains("has the device for itself (O_EXCL)"), "\(worker.output)")
        _ = consume fd
    }

    @Test func `a device that the host has mounted is refused, and the place is named`() throws {
        let device = try makeDevice()
        let mounted = try MountedFileSystem(device.path, at: directory.value.file("mnt"))
        let worker = try secondWorker(device.path)
        #expect(worker.code == 1)
        #expect(worker.output.contains("has it mounted at \(mounted.path)"), "\(worker.output)")
    }

    @Test func `who accepts leases is served`() throws {
        let image = try makeImage()
        _ = try WorkerProcess(["--blk-file=\(image)", "--allow-lease-locks"], in: directory.value)
    }
}
