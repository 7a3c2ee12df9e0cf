internal import Platform
internal import VhostUser

/// A front-end's view of the inflight region. vhost-user: "Inflight I/O tracking".
@safe public struct InflightMapping: ~Copyable {
    private let mapping: Mapping
    private let stride: Int
    private let start: Int

    init(_ description: InflightDescription, file: borrowing OwnedFD) throws(Errno) {
        guard let size = try file.fileSize().flatMap({ Int(exactly: $0) }), description.queueCount > 0,
            let start = Int(exactly: description.fileOffset), let count = Int(exactly: description.size),
            start <= size, count <= size - start
        else { throw .invalidArgument }
        mapping = try Mapping(sharing: file, count: size)
        self.start = start
        stride = count / Int(description.queueCount) & ~7
    }

    /// The first byte of its file, valid as long as this is.
    @unsafe public var base: UnsafeMutableRawPointer { unsafe mapping.base }

    /// Where a queue's log begins in its file, in bytes.
    public func offset(ofQueue queue: Int) -> Int { start + queue * stride }
}
