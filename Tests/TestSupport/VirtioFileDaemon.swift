public import Platform

/// A back-end that shares a directory over virtio-fs, as a process: Debian 12's virtiofsd, or a program that takes the
/// same options.
public struct VirtioFileDaemon: ~Copyable, Sendable {
    public var program: Program
    /// Where it listens.
    public let socketPath: String

    /// Where Debian 12 has it (package qemu-system-common).
    public static let debian = "/usr/lib/qemu/virtiofsd"

    /// Starts it and waits until it listens.
    ///
    /// - Parameters:
    ///   - path: of the program.
    ///   - source: the directory that it shares.
    ///   - options: more of them.
    /// - Throws: a sentence when it is not installed or refuses.
    public init(
        _ path: String = Self.debian, sharing source: String, options: [String] = [],
        in directory: borrowing TemporaryDirectory
    ) throws(SystemError) {
        let socketPath = directory.file("virtiofs.sock")
        guard TestFile.exists(path) else {
            throw SystemError(
                cannot: "find", path, nil, advice: "These tests need it: apt-get install qemu-system-common")
        }
        var program = try Program(
            path, ["--socket-path=\(socketPath)", "-o", "source=\(source)"] + options, in: directory)
        try program.waitForFile(socketPath)
        self.program = program
        self.socketPath = socketPath
    }
}
