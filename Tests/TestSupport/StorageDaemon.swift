public import Platform

/// QEMU's qemu-storage-daemon: the vhost-user-blk back-end that others are measured by.
public struct StorageDaemon: ~Copyable, Sendable {
    public var program: Program
    /// Where it listens.
    public let socketPath: String

    /// Starts it with one export and waits until it listens.
    ///
    /// - Parameter image: path of a raw file.
    /// - Throws: a sentence when it is not installed (Debian: qemu-system-common) or refuses.
    public init(
        image: String, queueCount: Int = 1, isWritable: Bool = true, in directory: borrowing TemporaryDirectory
    ) throws(SystemError) {
        let socketPath = directory.file("qsd.sock")
        let blockDevice = "driver=file,node-name=disk,filename=\(image),discard=unmap"
        let export =
            "type=vhost-user-blk,id=export,addr.type=unix,addr.path=\(socketPath),node-name=disk,"
            + "num-queues=\(queueCount),writable=\(isWritable ? "on" : "off")"
        var program = try start(["--blockdev", blockDevice, "--export", export], in: directory)
        try program.waitForFile(socketPath)
        self.program = program
        self.socketPath = socketPath
    }
}

private func start(
    _ arguments: [String], in directory: borrowing TemporaryDirectory
) throws(SystemError) -> Program {
    do throws(SystemError) {
        return try Program("qemu-storage-daemon", arguments, in: directory)
    } catch {
        throw SystemError(
            cannot: "start", "qemu-storage-daemon", error.errno,
            advice: "These tests need it: apt-get install qemu-system-common")
    }
}
