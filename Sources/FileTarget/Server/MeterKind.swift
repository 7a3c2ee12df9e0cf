internal import CWire

/// Under which of the eight kinds of `QueueMeter` an operation is counted: 0 reads of data, 1 writes, 2 what makes data
/// durable (these three are timed); 3 looks (LOOKUP, GETATTR, READDIR and their like), 4 changes of names, 5 opening
/// and closing, 6 attributes, locks and space, 7 everything else.
///
/// - Parameter opcode: FUSE's, any number.
public func meterKind(opcode: UInt32) -> UInt8 {
    switch Int(opcode) {
    case WIRE_FUSE_READ: 0
    case WIRE_FUSE_WRITE: 1
    case WIRE_FUSE_FSYNC, WIRE_FUSE_FSYNCDIR, WIRE_FUSE_SYNCFS, WIRE_FUSE_FLUSH: 2
    case WIRE_FUSE_LOOKUP, WIRE_FUSE_GETATTR, WIRE_FUSE_STATX, WIRE_FUSE_READLINK, WIRE_FUSE_READDIR,
        WIRE_FUSE_READDIRPLUS, WIRE_FUSE_STATFS, WIRE_FUSE_GETXATTR, WIRE_FUSE_LISTXATTR, WIRE_FUSE_ACCESS,
        WIRE_FUSE_LSEEK:
        3
    case WIRE_FUSE_SYMLINK, WIRE_FUSE_MKNOD, WIRE_FUSE_MKDIR, WIRE_FUSE_UNLINK, WIRE_FUSE_RMDIR, WIRE_FUSE_RENAME,
        WIRE_FUSE_RENAME2, WIRE_FUSE_LINK:
        4
    case WIRE_FUSE_OPEN, WIRE_FUSE_CREATE, WIRE_FUSE_TMPFILE, WIRE_FUSE_RELEASE, WIRE_FUSE_OPENDIR,
        WIRE_FUSE_RELEASEDIR, WIRE_FUSE_FORGET, WIRE_FUSE_BATCH_FORGET:
        5
    case WIRE_FUSE_SETATTR, WIRE_FUSE_SETXATTR, WIRE_FUSE_REMOVEXATTR, WIRE_FUSE_GETLK, WIRE_FUSE_SETLK,
        WIRE_FUSE_SETLKW, WIRE_FUSE_FALLOCATE, WIRE_FUSE_COPY_FILE_RANGE, WIRE_FUSE_COPY_FILE_RANGE_64:
        6
    default: 7
    }
}
