import Platform
import TestSupport
import Testing

/// An ext4 file system in a file, mounted, and gone with its owner.
final class MountedFileSystem {
    let path: String
    private var isFrozen = false

    /// - Parameter source: a file to make it in, or a device.
    init(_ source: String, at path: String) throws {
        self.path = path
        try Self.run("mkfs.ext4", ["-q", "-F", source])
        try Self.run("mkdir", ["-p", path])
        try Self.run("mount", [source, path])
    }

    /// Whatever writes to it waits from now on.
    func freeze() throws {
        try Self.run("fsfreeze", ["--freeze", path])
        isFrozen = true
    }

    func thaw() {
        guard isFrozen else { return }
        try? Self.run("fsfreeze", ["--unfreeze", path])
        isFrozen = false
    }

    private static func run(_ name: String, _ arguments: [String]) throws {
        let result = try TestSupport.run(name, arguments, in: try TemporaryDirectory())
        try #require(result.code == 0, "\(name): \(result.output)")
    }

    deinit {
        thaw()
        try? Self.run("umount", ["--lazy", path])
    }
}
