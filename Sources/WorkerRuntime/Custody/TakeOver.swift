internal import BlockTarget
internal import Custody
internal import FileTarget
internal import Glibc
internal import Inflight
internal import Platform
internal import Telemetry
internal import Uring

/// What a worker in custody gets instead of making it: memory and rings that outlive it.
struct TakeOver {
    let record: SessionRecord
    let link: SupervisorLink
    /// The device's kernel rings, in order; the last is the connection's.
    let ringNumbers: [Int32]
    /// Nil for a disk that has none.
    let image: GivenImage?
    /// Nil for a disk.
    let directory: GivenDirectory?
    /// What all workers of the device count, or this one alone.
    let statistics: DeviceStatistics

    /// Maps a ring. Another worker may be using it.
    func ring(_ index: Int) throws(SystemError) -> Ring {
        guard index < ringNumbers.count else {
            throw SystemError(
                cannot: "take over", "the device", nil,
                advice: "It has \(ringNumbers.count) kernel rings, too few: make it anew with as many threads as it had"
            )
        }
        let copy: OwnedFD
        do throws(Errno) {
            // The number stays open for another take-over by this very process, after a thaw.
            copy = OwnedFD(owning: try duplicateDescriptor(ringNumbers[index]))
        } catch {
            throw SystemError(cannot: "take over", "a kernel ring", error)
        }
        return try Ring(mapping: copy, parameters: record.ringParameters(index))
    }

    /// The number of the connection's ring.
    var journalRingNumber: Int { ringNumbers.count - 1 }

    /// Maps the connection's ring.
    func journalRing() throws(SystemError) -> Ring { try ring(journalRingNumber) }

    /// Whether nothing has to be made that workers share: it is made once, by one that has the device.
    func hasAll(for configuration: WorkerConfiguration) -> Bool {
        guard link.descriptors.number(CustodyKey(.inflight)) != nil else { return false }
        if case .directory = configuration.storage {
            return link.descriptors.number(CustodyKey(.shareTables)) != nil
        }
        guard case .image = configuration.storage else { return true }
        return (0..<configuration.threadCount).allSatisfy {
            link.descriptors.number(CustodyKey(.bounce, UInt16($0))) != nil
        }
    }

    /// Memory for a loop's bounce buffers: what an earlier worker has used, or new.
    func bounceMemory(loop: Int) throws -> OwnedFD {
        try kept(CustodyKey(.bounce, UInt16(loop)), bytes: FileBackend<Ring>.bounceBytes, name: "baton-bounce")
    }

    /// Where requests are logged when the front-end has no place for that.
    func privateInflight(_ configuration: WorkerConfiguration) throws(SystemError) -> InflightRegion {
        let (queues, size) = (configuration.queueCount, configuration.maximumQueueSize)
        // Packed rings need more than split ones: which kind comes is not known yet.
        let bytes = InflightRegion.byteCount(queueCount: queues, queueSize: size, packed: true)
        do {
            let fd = try kept(CustodyKey(.inflight), bytes: bytes, name: "baton-private-inflight")
            return try InflightRegion(
                fd: fd, offset: 0, count: UInt64(bytes), queueCount: queues, queueSize: size)
        } catch let error as SystemError {
            throw error
        } catch {
            throw SystemError(cannot: "map", "the inflight region", error as? Errno)
        }
    }

    func kept(_ key: CustodyKey, bytes: Int, name: String) throws -> OwnedFD {
        if let fd = try link.descriptors.duplicate(key) { return fd }
        let fd = try makeMemoryFile(name: name, count: bytes)
        try link.keep(fd, under: key)
        return fd
    }
}

extension TakeOver {
    /// The tables of a share: what an earlier worker has made, or new. They are made whole before they are in custody:
    /// a worker that dies while it makes them leaves nothing.
    func shareTables(_ size: ShareMemory.Size) throws(SystemError) -> ShareMemory {
        let key = CustodyKey(.shareTables)
        do {
            if let fd = try link.descriptors.duplicate(key) { return try ShareMemory(mapping: fd) }
            let fd = try makeMemoryFile(name: "baton-share", count: size.byteCount)
            let made = try ShareMemory(making: fd, size)
            try link.keep(fd, under: key)
            return made
        } catch let error as SystemError {
            throw error
        } catch {
            throw SystemError(cannot: "set aside", "the tables of the share", error as? Errno)
        }
    }

    /// Where a share's open files outlive this worker: the ring before the connection's.
    func openFiles() throws(SystemError) -> FileRing { FileRing(FileTableRing(try ring(ringNumbers.count - 2))) }
}

/// The directory, as this worker alone sees it.
final class GivenDirectory {
    private let root: OwnedFD
    private let processFiles: OwnedFD?
    /// /proc/self/fd is the working directory: this process sees no /proc.
    let worksInProcessFiles: Bool

    /// - Parameters:
    ///   - root: open with O_RDONLY | O_DIRECTORY.
    ///   - processFiles: /proc/self/fd; nil where there is none.
    ///   - isConfined: this process sees nothing but the directory: the calls that take neither a descriptor nor a
    ///     directory (listxattr) need /proc/self/fd as its working directory.
    init(root: consuming OwnedFD, processFiles: consuming OwnedFD?, isConfined: Bool) {
        self.root = root
        worksInProcessFiles =
            switch processFiles {
            case .some(let files): isConfined && fchdir(files.number) == 0
            case .none: false
            }
        self.processFiles = processFiles
    }

    /// Another descriptor of it: this process may take the device up again, after a thaw.
    func duplicateRoot() throws(SystemError) -> OwnedFD {
        do throws(Errno) {
            return try root.duplicate()
        } catch {
            throw SystemError(cannot: "share", "the directory", error)
        }
    }

    func duplicateProcessFiles() throws(SystemError) -> OwnedFD? {
        let number: Int32 =
            switch processFiles {
            case .some(let files): files.number
            case .none: -1
            }
        guard number >= 0 else { return nil }
        do throws(Errno) {
            return OwnedFD(owning: try duplicateDescriptor(number))
        } catch {
            throw SystemError(cannot: "share", "the directory", error)
        }
    }
}

/// The image, as the supervisor has opened it for this worker alone. What takes time is done before the device is
/// claimed.
struct GivenImage {
    let image: DiskImage
    let supportsDiscard: Bool

    /// - Returns: nil for a disk that has none.
    /// - Throws: why it cannot be served.
    static func take(_ configuration: WorkerConfiguration, from link: SupervisorLink) throws -> GivenImage? {
        guard case .image(let path, let cache) = configuration.storage else { return nil }
        guard let main = try link.descriptors.take(CustodyKey(.image)) else {
            throw SystemError(cannot: "serve", path, nil, advice: "The supervisor has not given it")
        }
        let image = try DiskImage(
            main, unaligned: try link.descriptors.take(CustodyKey(.image, 1)), path: path,
            readOnly: configuration.isReadOnly, cache: cache, allowsLeaseLocks: configuration.allowsLeaseLocks)
        return GivenImage(image: image, supportsDiscard: image.probeDiscard())
    }
}

extension WorkerConfiguration {
    /// Statistics that go with this worker.
    func makeStatistics() throws(Errno) -> DeviceStatistics {
        try DeviceStatistics(queueCount: queueCount, queueSize: maximumQueueSize)
    }

    /// The device's statistics, as the supervisor has given them; those of this worker alone if it has not, or if they
    /// do not fit.
    func statistics(from link: SupervisorLink) throws(Errno) -> DeviceStatistics {
        guard let fd = try link.descriptors.duplicate(CustodyKey(.statistics)),
            let given = try? DeviceStatistics(fd, writable: true), given.queueCount >= queueCount,
            given.queueSize >= maximumQueueSize
        else { return try makeStatistics() }
        return given
    }
}
