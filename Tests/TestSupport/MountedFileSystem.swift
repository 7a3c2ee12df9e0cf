public import Platform

/// An ext4 file system in a file or on a device, mounted, and gone with its owner.
public final class MountedFileSystem {
    public let path: String
    private var isFrozen = false

    /// - Parameters:
    ///   - source: a file to make it in, or a device.
    ///   - path: a folder to make, and to mount it at.
    /// - Throws: what the programs for it say.
    public init(_ source: String, at path: String) throws(SystemError) {
        self.path = path
        try Self.run("mkfs.ext4", ["-q", "-F", source])
        try Self.run("mkdir", ["-p", path])
        try Self.run("mount", [source, path])
    }

    /// Whatever writes to it waits from now on.
    public func freeze() throws(SystemError) {
        try Self.run("fsfreeze", ["--freeze", path])
        isFrozen = true
    }

    public func thaw() {
        guard isFrozen else { return }
        try? Self.run("fsfreeze", ["--unfreeze", path])
        isFrozen = false
    }

    private static func run(_ name: String, _ arguments: [String]) throws(SystemError) {
        let result = try TestSupport.run(name, arguments, in: try TemporaryDirectory())
        guard result.code == 0 else { throw SystemError(cannot: "run", name, nil, advice: result.output) }
    }

    deinit {
        thaw()
        try? Self.run("umount", ["--lazy", path])
    }
}
