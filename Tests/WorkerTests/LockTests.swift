import Glibc
import Platform
import TestSupport
import Testing

/// Who may use an image at the same time, and who is told not to.
@Suite(.serialized) struct LockTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private func makeImage() throws -> String {
        let path = directory.value.file("disk.img")
        try TestFile.create(path, count: 1 << 20)
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
}
