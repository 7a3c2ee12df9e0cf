internal import FrontendKit
internal import Glibc
internal import Platform

/// Where one benchmark keeps its image, socket and log.
struct BenchDirectory {
    let path: String

    init(in parent: String) throws {
        path = "\(parent)/baton-bench-\(getpid())"
        guard unsafe mkdir(path, 0o700) == 0 else { throw SystemError(cannot: "make", path, .current) }
    }

    func remove() {
        for name in ["image", "bench.sock", "server.log"] { unsafe unlink("\(path)/\(name)") }
        unsafe rmdir(path)
    }

    /// Makes an image full of numbers, so that it has blocks on the disk and all of it is in the page cache.
    ///
    /// - Returns: its path.
    func makeImage(mebibytes: Int) throws -> String {
        let image = "\(path)/image"
        let file = try openFile(image, O_RDWR | O_CREAT | O_TRUNC)
        var random = SeededGenerator(seed: 1)
        let words = (0..<(1 << 17)).map { _ in random.next() }
        for _ in 0..<mebibytes {
            let written = unsafe words.withUnsafeBytes { unsafe write(file.number, $0.baseAddress, $0.count) }
            guard written == 1 << 20 else { throw SystemError(cannot: "fill", image, .current) }
        }
        fsync(file.number)
        return image
    }
}
