internal import Glibc
public import Platform

/// Whole files, for tests: what lies in them, and changes behind the back of whoever serves them.
public enum TestFile {
    /// Makes a file of `count` zero bytes, sparse.
    public static func create(_ path: String, count: Int) throws(SystemError) {
        let fd = try open(path, O_RDWR | O_CREAT | O_TRUNC)
        guard ftruncate(fd.number, off_t(count)) == 0 else { throw SystemError(cannot: "size", path, .current) }
    }

    /// Opens a file for output that goes to its end.
    public static func openForAppending(_ path: String) throws(SystemError) -> OwnedFD {
        try open(path, O_WRONLY | O_CREAT | O_APPEND)
    }

    /// Writes bytes at an offset.
    public static func write(_ bytes: [UInt8], to path: String, at offset: Int) throws(SystemError) {
        let fd = try open(path, O_WRONLY)
        let written = unsafe bytes.withUnsafeBytes { unsafe pwrite(fd.number, $0.baseAddress, $0.count, off_t(offset)) }
        guard written == bytes.count else { throw SystemError(cannot: "write", path, .current) }
    }

    /// Reads up to `count` bytes at an offset; fewer at the end of the file.
    public static func read(_ path: String, at offset: Int = 0, count: Int) throws(SystemError) -> [UInt8] {
        let fd = try open(path, O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: count)
        let result = unsafe bytes.withUnsafeMutableBytes {
            unsafe pread(fd.number, $0.baseAddress, $0.count, off_t(offset))
        }
        guard result >= 0 else { throw SystemError(cannot: "read", path, .current) }
        return Array(bytes.prefix(result))
    }

    /// Removes a file or a socket.
    public static func remove(_ path: String) throws(SystemError) {
        guard unsafe unlink(path) == 0 else { throw SystemError(cannot: "remove", path, .current) }
    }

    /// The names of what a directory holds, "." and ".." left out; none when it cannot be read.
    public static func names(in directory: String) -> [String] { directoryNames(directory) }

    /// Whether there is something at a path.
    public static func exists(_ path: String) -> Bool {
        unsafe access(path, F_OK) == 0
    }

    private static func open(_ path: String, _ flags: Int32) throws(SystemError) -> OwnedFD {
        let number = unsafe Glibc.open(path, flags | O_CLOEXEC, 0o600)
        guard number >= 0 else { throw SystemError(cannot: "open", path, .current) }
        return OwnedFD(owning: number)
    }
}
