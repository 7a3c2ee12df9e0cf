internal import CLinux
internal import Custody
internal import Glibc
public import Platform

/// How an image's data goes through the host.
public enum CacheMode: String, Sendable, CaseIterable {
    /// O_DIRECT: past the host's page cache.
    case direct
    /// Through the host's page cache.
    case buffered
}

/// How a backend reaches an image: open files, and what they ask of those who use them.
public struct ImageAccess: Sendable {
    /// The descriptor for transfers that meet the alignment.
    public var file: Int32
    /// The descriptor for those that do not.
    public var unalignedFile: Int32
    /// What `file` asks of offsets and lengths, in bytes: a power of two, 1 when it is buffered.
    public var offsetAlignment: Int
    /// What `file` asks of memory, in bytes: a power of two, 1 when it is buffered.
    public var memoryAlignment: Int
    public var isBlockDevice: Bool
    public var isReadOnly: Bool

    public init(
        file: Int32, unalignedFile: Int32, offsetAlignment: Int = 1, memoryAlignment: Int = 1,
        isBlockDevice: Bool = false, isReadOnly: Bool = false
    ) {
        self.file = file
        self.unalignedFile = unalignedFile
        self.offsetAlignment = offsetAlignment
        self.memoryAlignment = memoryAlignment
        self.isBlockDevice = isBlockDevice
        self.isReadOnly = isReadOnly
    }
}

/// An opened image: a regular file or a block device.
///
/// A direct image has a second, buffered open file for requests that are smaller than the storage's block. Direct and
/// buffered access to one file see each other's data: the kernel writes back and drops cached pages around direct
/// transfers.
public final class DiskImage: Sendable {
    /// Bytes, a multiple of 512.
    public let bytes: UInt64
    public let isBlockDevice: Bool
    public let isReadOnly: Bool
    public let cache: CacheMode
    /// What O_DIRECT asks of offsets and lengths, in bytes; 1 when the image is buffered.
    public let offsetAlignment: Int
    /// What O_DIRECT asks of memory, in bytes; 1 when the image is buffered.
    public let memoryAlignment: Int
    /// The storage's physical block size, in bytes, as far as it tells.
    public let physicalBlockSize: Int
    /// Bytes at the end of the file that are in no whole sector and are not served.
    public let ignoredBytes: UInt64

    /// The open file behind this number is another one while a block device is claimed.
    private let main: OwnedFD
    private let unaligned: OwnedFD?
    /// Of a block device that is to be written: what `main` is while the device is not claimed.
    private let unclaimed: OwnedFD?

    var unclaimedNumber: Int32? {
        switch unclaimed {
        case .some(let fd): fd.number
        case .none: nil
        }
    }

    /// How a backend reaches it. Whoever keeps this keeps the image.
    public var access: ImageAccess {
        let unalignedFile =
            switch unaligned {
            case .some(let fd): fd.number
            case .none: main.number
            }
        return ImageAccess(
            file: main.number, unalignedFile: unalignedFile, offsetAlignment: offsetAlignment,
            memoryAlignment: memoryAlignment, isBlockDevice: isBlockDevice, isReadOnly: isReadOnly)
    }

    /// Opens an image. That alone does not give the right to serve it: see `ImageTenure`.
    ///
    /// - Parameter allowsLeaseLocks: take an image on a file system whose locks do not fence (`LockWorth`).
    /// - Throws: what failed, and what to do.
    public convenience init(
        path: String, readOnly: Bool, cache: CacheMode, allowsLeaseLocks: Bool = false
    ) throws(SystemError) {
        let main = try openImage(path, readOnly: readOnly, direct: cache == .direct)
        let unaligned: OwnedFD? = cache == .direct ? try openImage(path, readOnly: readOnly, direct: false) : nil
        try self.init(
            main, unaligned: unaligned, path: path, readOnly: readOnly, cache: cache,
            allowsLeaseLocks: allowsLeaseLocks)
    }

    /// Takes an image that somebody else has opened.
    ///
    /// - Parameters:
    ///   - main: open with O_DIRECT where `cache` says so.
    ///   - unaligned: the second open file of a direct image.
    ///   - path: what the image is called in messages.
    /// - Throws: what failed, and what to do.
    public init(
        _ main: consuming OwnedFD, unaligned: consuming OwnedFD?, path: String, readOnly: Bool, cache: CacheMode,
        allowsLeaseLocks: Bool = false
    ) throws(SystemError) {
        var status = stat()
        guard unsafe fstat(main.number, &status) == 0 else { throw SystemError(cannot: "examine", path, .current) }
        let kind = status.st_mode & S_IFMT
        guard kind == S_IFREG || kind == S_IFBLK else {
            throw SystemError(
                cannot: "serve", path, nil,
                advice: "It is neither a regular file nor a block device: give the path of an image or of a disk")
        }
        if !readOnly, !allowsLeaseLocks { try Self.refuseLeases(main, path) }
        unclaimed = kind == S_IFBLK && !readOnly ? try Self.duplicate(main, path) : nil
        isBlockDevice = kind == S_IFBLK
        var size = UInt64(max(0, status.st_size))
        if isBlockDevice, unsafe clinux_block_device_size(main.number, &size) != 0 {
            throw SystemError(cannot: "learn the size of", path, .current)
        }
        guard size >= 512 else {
            throw SystemError(
                cannot: "serve", path, nil,
                advice: "It has \(size) bytes, less than a sector: make it larger (truncate -s)")
        }
        bytes = size / 512 * 512
        ignoredBytes = size % 512
        isReadOnly = readOnly
        self.cache = cache
        if cache == .direct {
            let alignment = try Self.directAlignment(main.number, path: path, isBlockDevice: isBlockDevice)
            offsetAlignment = alignment.offset
            memoryAlignment = alignment.memory
        } else {
            offsetAlignment = 1
            memoryAlignment = 1
        }
        physicalBlockSize = Self.physicalBlockSize(main.number, isBlockDevice: isBlockDevice, status)
        self.main = main
        self.unaligned = unaligned
    }

    /// What `currentBytes` is told by when the file is another's to change: nil for a block device, whose size changes
    /// without a word.
    ///
    /// - Throws: inotify's error.
    public func watch() throws(Errno) -> FileWatch? {
        isBlockDevice ? nil : try FileWatch(main.number)
    }

    /// The size now, in bytes, a multiple of 512. `bytes` is what it was when it was opened.
    ///
    /// - Throws: fstat's or ioctl's error.
    public func currentBytes() throws(Errno) -> UInt64 {
        if !isBlockDevice { return (try main.fileSize() ?? 0) / 512 * 512 }
        return try main.blockDeviceSize() / 512 * 512
    }

    /// Makes durable what was written so far.
    ///
    /// - Throws: fdatasync's error.
    public func synchronize() throws(Errno) {
        guard !isReadOnly else { return }
        try retryingInterrupts { fdatasync(main.number) }
    }

    private static func refuseLeases(_ fd: borrowing OwnedFD, _ path: String) throws(SystemError) {
        guard case .lease(let name) = LockWorth(fileSystemMagic: clinux_file_system_magic(fd.number)) else { return }
        throw SystemError(
            cannot: "serve", path, nil,
            advice: "It lies on \(name), whose locks do not hold back a dead worker's writes: they could land on newer"
                + " ones. Use another file system, or --allow-lease-locks if nobody restarts workers before their"
                + " writes have landed")
    }

    private static func duplicate(_ fd: borrowing OwnedFD, _ path: String) throws(SystemError) -> OwnedFD {
        do throws(Errno) {
            return try fd.duplicate()
        } catch {
            throw SystemError(cannot: "open again", path, error)
        }
    }

    /// What O_DIRECT asks for: as the kernel tells it (6.1 and newer), else the device's logical block, else found out
    /// by trying.
    private static func directAlignment(_ fd: Int32, path: String, isBlockDevice: Bool) throws(SystemError) -> (
        offset: Int, memory: Int
    ) {
        var memory: UInt32 = 0
        var offset: UInt32 = 0
        if unsafe clinux_direct_alignment(fd, &memory, &offset) == 0, offset > 0, memory > 0 {
            return (max(512, Int(offset)), Int(memory))
        }
        var logical: Int32 = 0
        if isBlockDevice, unsafe clinux_logical_block_size(fd, &logical) == 0, logical > 0 {
            return (Int(logical), Int(logical))
        }
        var buffer: UnsafeMutableRawPointer?
        guard unsafe posix_memalign(&buffer, 4096, 4096) == 0 else {
            throw SystemError(cannot: "probe", path, .noMemory)
        }
        defer { unsafe free(buffer) }
        for candidate in [512, 4096] where unsafe pread(fd, buffer, candidate, 0) >= 0 {
            return (candidate, candidate)
        }
        throw SystemError(
            cannot: "read", path, .current, advice: "It was opened with O_DIRECT: try --cache=buffered")
    }

    private static func physicalBlockSize(_ fd: Int32, isBlockDevice: Bool, _ status: stat) -> Int {
        var size: UInt32 = 0
        if isBlockDevice, unsafe clinux_physical_block_size(fd, &size) == 0, size >= 512, size & (size - 1) == 0 {
            return Int(size)
        }
        let block = Int(status.st_blksize)
        return block >= 512 && block <= 65536 && block & (block - 1) == 0 ? block : 4096
    }

    /// Whether space can be freed.
    ///
    /// A file system that is not known shows it by a hole punched far behind the end of the file, which changes
    /// nothing. The known ones are not tried: they lock the file for it and wait for all direct requests that are under
    /// way. A worker that starts would stop the one that serves, and wait for whatever a dead one left.
    public func probeDiscard() -> Bool {
        var status = stat()
        guard !isReadOnly, unsafe fstat(main.number, &status) == 0 else { return false }
        if !isBlockDevice {
            if isKnownToPunchHoles(fileSystemMagic: clinux_file_system_magic(main.number)) { return true }
            let (place, isTooFar) = status.st_size.addingReportingOverflow(1 << 30)
            return !isTooFar && fallocate(main.number, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place, 4096) == 0
        }
        return clinux_can_discard(main.number) == 1
    }
}
