internal import Glibc
public import Platform

/// A directory of one test's own, gone with everything in it when the test lets go of it.
public struct TemporaryDirectory: ~Copyable, Sendable {
    /// Short, so that socket paths (107 bytes) fit into it.
    public let path: String

    /// - Parameter place: where it is made.
    /// - Throws: mkdtemp's error.
    public init(in place: String = "/tmp") throws(SystemError) {
        var template = Array("\(place)/baton-test-XXXXXX".utf8CString)
        let made = unsafe template.withUnsafeMutableBufferPointer { buffer in
            unsafe mkdtemp(buffer.baseAddress!) != nil
        }
        guard made else { throw SystemError(cannot: "make", "a temporary directory", .current) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The path of a file in it.
    public borrowing func file(_ name: String) -> String { "\(path)/\(name)" }

    deinit {
        removeTree(path)
    }
}

/// Lets a copyable suite own a directory.
public final class TemporaryDirectoryBox: Sendable {
    public let value: TemporaryDirectory

    public init(_ value: consuming TemporaryDirectory) {
        self.value = value
    }
}

/// Links are removed, not followed: a test may have made one that leads out of the directory.
private func removeTree(_ path: String) {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else { return }
    if status.st_mode & S_IFMT == S_IFDIR {
        for name in TestFile.names(in: path) { removeTree("\(path)/\(name)") }
    }
    unsafe remove(path)
}
