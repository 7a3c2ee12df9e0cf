internal import CWire
internal import Glibc
internal import Platform

/// Names of the bits that INIT negotiates, of those that matter here.
public enum FuseFeature {
    @inlinable static func bit(_ number: Int) -> UInt64 { 1 << UInt64(number) }
    static let asynchronousRead = bit(WIRE_FUSE_ASYNC_READ_BIT)
    static let posixLocks = bit(WIRE_FUSE_POSIX_LOCKS_BIT)
    static let atomicTruncation = bit(WIRE_FUSE_ATOMIC_O_TRUNC_BIT)
    static let bigWrites = bit(WIRE_FUSE_BIG_WRITES_BIT)
    static let serverMasks = bit(WIRE_FUSE_DONT_MASK_BIT)
    static let flockLocks = bit(WIRE_FUSE_FLOCK_LOCKS_BIT)
    static let invalidatesData = bit(WIRE_FUSE_AUTO_INVAL_DATA_BIT)
    static let readDirectoryPlus = bit(WIRE_FUSE_DO_READDIRPLUS_BIT)
    static let readDirectoryPlusAuto = bit(WIRE_FUSE_READDIRPLUS_AUTO_BIT)
    static let asynchronousDirect = bit(WIRE_FUSE_ASYNC_DIO_BIT)
    static let writeback = bit(WIRE_FUSE_WRITEBACK_CACHE_BIT)
    static let parallelDirectories = bit(WIRE_FUSE_PARALLEL_DIROPS_BIT)
    static let accessLists = bit(WIRE_FUSE_POSIX_ACL_BIT)
    static let maximumPages = bit(WIRE_FUSE_MAX_PAGES_BIT)
    static let cacheSymlinks = bit(WIRE_FUSE_CACHE_SYMLINKS_BIT)
    static let submounts = bit(WIRE_FUSE_SUBMOUNTS_BIT)
    static let killsPrivileges = bit(WIRE_FUSE_HANDLE_KILLPRIV_V2_BIT)
    static let longSetXattr = bit(WIRE_FUSE_SETXATTR_EXT_BIT)
    static let initExtension = bit(WIRE_FUSE_INIT_EXT_BIT)
    static let securityContext = bit(WIRE_FUSE_SECURITY_CTX_BIT)
    static let supplementaryGroup = bit(WIRE_FUSE_CREATE_SUPP_GROUP_BIT)
}

/// What driver and server have agreed on in INIT.
public struct FuseAgreement: Hashable, Sendable {
    /// The minor version of the protocol that both speak.
    public var minor: UInt32
    /// Bits of flags, and of flags2 from bit 32 on.
    public var flags: UInt64

    public init(minor: UInt32, flags: UInt64) {
        self.minor = minor
        self.flags = flags
    }

    func has(_ feature: UInt64) -> Bool { flags & feature == feature }

    /// The oldest version that is spoken: Linux 5.4's, the first with virtio-fs.
    static let oldestMinor: UInt32 = 31

    /// The answer to INIT.
    ///
    /// - Returns: the agreement, nil when the driver is to ask again with our major version; and the answer.
    /// - Throws: EPROTO for a version that is too old.
    static func negotiate(
        _ offer: wire_fuse_init_in, _ description: ShareDescription
    ) throws(Errno) -> (FuseAgreement?, wire_fuse_init_out) {
        var answer = wire_fuse_init_out()
        answer.major = UInt32(WIRE_FUSE_KERNEL_VERSION)
        answer.minor = UInt32(WIRE_FUSE_KERNEL_MINOR_VERSION)
        if offer.major > answer.major { return (nil, answer) }
        guard offer.major == answer.major, offer.minor >= oldestMinor else { throw Errno(rawValue: EPROTO) }
        let minor = min(offer.minor, answer.minor)
        var offered = UInt64(offer.flags)
        if offered & FuseFeature.initExtension != 0 { offered |= UInt64(offer.flags2) << 32 }
        let flags = offered & wanted(description, offered: offered)
        let pages = ShareDescription.maximumTransfer / 4096
        answer.max_readahead = min(offer.max_readahead, UInt32(ShareDescription.maximumTransfer))
        answer.flags = UInt32(truncatingIfNeeded: flags)
        answer.flags2 = UInt32(truncatingIfNeeded: flags >> 32)
        answer.max_background = 64
        answer.congestion_threshold = 48
        // Without FUSE_MAX_PAGES a driver sends 32 pages at most, whatever it is told.
        answer.max_write = UInt32(flags & FuseFeature.maximumPages != 0 ? pages * 4096 : 32 * 4096)
        answer.max_pages = flags & FuseFeature.maximumPages != 0 ? UInt16(pages) : 0
        answer.time_gran = 1
        return (FuseAgreement(minor: minor, flags: flags), answer)
    }

    private static func wanted(_ description: ShareDescription, offered: UInt64) -> UInt64 {
        var wanted =
            FuseFeature.asynchronousRead | FuseFeature.atomicTruncation | FuseFeature.bigWrites
            | FuseFeature.asynchronousDirect | FuseFeature.parallelDirectories | FuseFeature.maximumPages
            | FuseFeature.longSetXattr | FuseFeature.initExtension | FuseFeature.supplementaryGroup
        func want(_ feature: UInt64, if condition: Bool) { if condition { wanted |= feature } }
        want(FuseFeature.invalidatesData, if: description.cache == .auto)
        want(FuseFeature.cacheSymlinks, if: description.cache == .always)
        want(FuseFeature.posixLocks, if: description.hasPOSIXLocks)
        want(FuseFeature.flockLocks, if: description.hasFlock)
        want(
            FuseFeature.readDirectoryPlus | FuseFeature.readDirectoryPlusAuto, if: description.readsDirectoriesPlus)
        want(FuseFeature.writeback, if: description.writesBack)
        // The server applies umask itself only where access lists may replace it, and a driver has both or none.
        let listBits = FuseFeature.accessLists | FuseFeature.serverMasks
        want(
            listBits,
            if: description.hasACLs && description.hasExtendedAttributes && offered & listBits == listBits)
        want(FuseFeature.submounts, if: description.announcesSubmounts)
        want(FuseFeature.killsPrivileges, if: description.killsPrivileges)
        want(FuseFeature.securityContext, if: description.hasSecurityLabels && description.hasExtendedAttributes)
        return wanted
    }
}
