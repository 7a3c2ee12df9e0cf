internal import CLinux
internal import Glibc

/// Flags of the host's calls as the calls take them; Swift sees C's enumerations as wider numbers.
enum HostFlags {
    static var emptyPath: Int32 { Int32(CLINUX_AT_EMPTY_PATH) }
    static var noAutomount: Int32 { Int32(CLINUX_AT_NO_AUTOMOUNT) }
    static var pathOnly: Int32 { Int32(CLINUX_O_PATH) }
    static var temporary: Int32 { Int32(CLINUX_O_TMPFILE) }
    static var direct: Int32 { Int32(CLINUX_O_DIRECT) }
    static var noAccessTime: Int32 { Int32(CLINUX_O_NOATIME) }
    static var largeFile: Int32 { Int32(CLINUX_O_LARGEFILE) }
    /// One component, and nothing that leads elsewhere.
    static var resolve: UInt64 { UInt64(CLINUX_RESOLVE_BENEATH | CLINUX_RESOLVE_NO_MAGICLINKS) }
    /// RENAME_NOREPLACE
    static var renameWithoutReplacing: UInt32 { 1 }
    static var basicStatus: UInt32 { UInt32(STATX_BASIC_STATS) }
    /// Among the attributes of statx.
    static var mountRoot: UInt64 { UInt64(STATX_ATTR_MOUNT_ROOT) }
    static var appendOnly: UInt64 { UInt64(STATX_ATTR_APPEND) }
    /// What statx is asked for.
    static var status: UInt32 { basicStatus | UInt32(CLINUX_STATX_MNT_ID) }
}
