public import Platform
internal import Synchronization
internal import Virtio

/// The dirty log of a migration, as its front-end has it: a bit for each page of 4096 bytes of guest memory.
@safe public final class DirtyBitmap: Sendable {
    /// The file to hand over.
    public let file: OwnedFD
    /// Length in bytes.
    public let count: Int
    private let mapping: Mapping

    /// - Parameter bytes: how many; each stands for 8 pages.
    /// - Throws: the system's error, when there is not so much memory.
    public init(bytes: Int) throws(SystemError) {
        do throws(Errno) {
            file = try makeMemoryFile(name: "dirty log", count: bytes)
            mapping = try Mapping(sharing: file, count: bytes)
        } catch {
            throw SystemError(cannot: "make", "a dirty log of \(bytes) bytes", error)
        }
        count = bytes
    }

    /// A log for all of a guest's memory.
    public convenience init(for memory: GuestMemory) throws(SystemError) {
        let end = memory.regions.map { $0.description.guestAddress + $0.description.size }.max() ?? 0
        try self.init(bytes: Int(end / 4096 / 8) + 1)
    }

    /// Takes the marks out, as a front-end does before it copies the pages.
    ///
    /// - Returns: the numbers of the pages that were marked.
    public func takeMarks() -> Set<UInt64> {
        var pages: Set<UInt64> = []
        for index in 0..<count {
            let byte = unsafe (mapping.base + index).assumingMemoryBound(to: Atomic<UInt8>.self)
            let bits = unsafe byte.pointee.exchange(0, ordering: .sequentiallyConsistent)
            for bit in 0..<8 where bits & (1 << bit) != 0 { pages.insert(UInt64(index * 8 + bit)) }
        }
        return pages
    }
}
