public import CWire

/// One component of a path, as it came from the driver, checked: not empty, at most 255 bytes, no slash, neither `.`
/// nor `..`; a NUL follows.
@safe public struct FuseName {
    public let bytes: UnsafePointer<CChar>
    /// Without the NUL.
    public let count: Int
}

/// Bytes of a request, in memory of the server, until the call has been carried out.
@safe public struct FuseBytes {
    public let base: UnsafeRawPointer
    public let count: Int

    public init(base: UnsafeRawPointer, count: Int) {
        unsafe self.base = base
        self.count = count
    }
}

/// What comes with a request that makes a file.
public struct FuseExtras {
    /// A group of the driver's program besides its first, where the directory gives its own to new files.
    public var group: UInt32?
    /// Name (with its NUL) and value of a security context.
    public var labelName: FuseBytes?
    public var label: FuseBytes?

    public init() {}
}

/// One request of a driver, decoded and checked as far as that goes without looking at a file: what node ids and
/// handles stand for is the file system's. Names and numbers are those of <linux/fuse.h>.
public enum FuseCall {
    case lookUp(FuseName)
    case forget(UInt64)
    /// wire_fuse_forget_one, so many.
    case batchForget(FuseBytes, count: Int)
    case getAttributes(handle: UInt64?)
    case statx(wire_fuse_statx_in)
    case setAttributes(wire_fuse_setattr_in)
    case readLink
    /// The target is any text of 1 to 4095 bytes.
    case symlink(FuseName, target: FuseName, FuseExtras)
    case makeNode(FuseName, wire_fuse_mknod_in, FuseExtras)
    case makeDirectory(FuseName, wire_fuse_mkdir_in, FuseExtras)
    case unlink(FuseName)
    case removeDirectory(FuseName)
    case rename(FuseName, to: UInt64, FuseName, flags: UInt32)
    case link(node: UInt64, FuseName)
    case open(wire_fuse_open_in)
    case create(FuseName, wire_fuse_create_in, FuseExtras)
    case temporaryFile(wire_fuse_create_in, FuseExtras)
    /// The request's vectors are where the data goes.
    case read(wire_fuse_read_in)
    /// The request's vectors are what is written.
    case write(wire_fuse_write_in)
    case statistics
    case release(wire_fuse_release_in)
    case flush(wire_fuse_flush_in)
    case synchronize(wire_fuse_fsync_in)
    case openDirectory(wire_fuse_open_in)
    case readDirectory(wire_fuse_read_in, plus: Bool)
    case releaseDirectory(wire_fuse_release_in)
    case synchronizeDirectory(wire_fuse_fsync_in)
    case synchronizeAll
    case setAttribute(FuseName, value: FuseBytes, wire_fuse_setxattr_in)
    case getAttribute(FuseName, size: UInt32)
    case listAttributes(size: UInt32)
    case removeAttribute(FuseName)
    case getLock(wire_fuse_lk_in)
    case setLock(wire_fuse_lk_in, waits: Bool)
    case access(mask: UInt32)
    case allocate(wire_fuse_fallocate_in)
    case seek(wire_fuse_lseek_in)
    case copyRange(wire_fuse_copy_file_range_in, tellsLong: Bool)
    case interrupt(UInt64)
}
