/// What the locks of a file system are worth.
public enum LockWorth: Sendable, Equatable {
    /// The kernel keeps them with the open file: they fall when the last request that uses it is done.
    case fence
    /// A server, or another program, keeps them and may give them to somebody else while requests of the one before
    /// are still under way. The name is the file system's.
    case lease(String)

    /// Judges a file system by its magic number (statfs.f_type, linux/magic.h).
    ///
    /// FUSE is among the leases because nobody knows what the program behind it does with a lock, nor when a request
    /// that it has answered has landed. GFS2 and OCFS2 are not: a cluster with them fences a machine before it gives
    /// away that machine's locks. What is not known is local: file systems that keep locks elsewhere are few.
    public init(fileSystemMagic magic: UInt32) {
        self =
            switch magic {
            case 0x6969: .lease("NFS")
            case 0x517b, 0xff53_4d42, 0xfe53_4d42: .lease("SMB")
            case 0x00c3_6400: .lease("CephFS")
            case 0x6573_5546: .lease("FUSE")
            case 0x0102_1997: .lease("9p")
            case 0x0bd0_0bd0: .lease("Lustre")
            case 0x4750_4653: .lease("GPFS")
            case 0x5346_414f, 0x6b41_4653: .lease("AFS")
            case 0x7375_7245: .lease("Coda")
            case 0x786f_4256: .lease("VirtualBox shared folders")
            default: .fence
            }
    }
}
