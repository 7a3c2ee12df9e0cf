internal import Glibc
internal import Platform
internal import Virtio

/// A dirty log, and the front-end's look at it.
final class SimulatedDirtyLog {
    /// The device's side.
    let log: DirtyLog
    private let mapping: Mapping

    /// - Parameter pages: how many it has bits for, from guest address 0 on.
    init(pages: Int) throws(Errno) {
        let file = try makeMemoryFile(name: "dirty log", count: pages / 8)
        log = try DirtyLog(fd: file, offset: 0, count: UInt64(pages / 8))
        mapping = try Mapping(sharing: file, count: pages / 8)
    }

    func isMarked(_ page: UInt64) -> Bool {
        guard page / 8 < UInt64(mapping.count) else { return false }
        return unsafe mapping.base.load(fromByteOffset: Int(page / 8), as: UInt8.self) & (1 << (page % 8)) != 0
    }

    func clear() {
        // A hole in its file: pages of the log that nobody touches cost nothing.
        let result = unsafe madvise(mapping.base, mapping.count, MADV_REMOVE)
        precondition(result == 0, "a memory file takes holes")
    }
}
