/// What a FUSE request asks for (`fuse_opcode`), as an open value: any number may be sent.
public struct FileOpcode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    private init(_ rawValue: UInt32) { self.rawValue = rawValue }

    public static let lookup = FileOpcode(1)
    public static let forget = FileOpcode(2)
    public static let getAttributes = FileOpcode(3)
    public static let setAttributes = FileOpcode(4)
    public static let readLink = FileOpcode(5)
    public static let symbolicLink = FileOpcode(6)
    public static let makeNode = FileOpcode(8)
    public static let makeDirectory = FileOpcode(9)
    public static let unlink = FileOpcode(10)
    public static let removeDirectory = FileOpcode(11)
    public static let rename = FileOpcode(12)
    public static let link = FileOpcode(13)
    public static let open = FileOpcode(14)
    public static let read = FileOpcode(15)
    public static let write = FileOpcode(16)
    public static let fileSystemStatus = FileOpcode(17)
    public static let release = FileOpcode(18)
    public static let synchronize = FileOpcode(20)
    public static let setExtendedAttribute = FileOpcode(21)
    public static let getExtendedAttribute = FileOpcode(22)
    public static let listExtendedAttributes = FileOpcode(23)
    public static let removeExtendedAttribute = FileOpcode(24)
    public static let flush = FileOpcode(25)
    public static let initialize = FileOpcode(26)
    public static let openDirectory = FileOpcode(27)
    public static let readDirectory = FileOpcode(28)
    public static let releaseDirectory = FileOpcode(29)
    public static let synchronizeDirectory = FileOpcode(30)
    public static let getLock = FileOpcode(31)
    public static let setLock = FileOpcode(32)
    public static let setLockAndWait = FileOpcode(33)
    public static let access = FileOpcode(34)
    public static let create = FileOpcode(35)
    public static let interrupt = FileOpcode(36)
    public static let mapBlock = FileOpcode(37)
    public static let destroy = FileOpcode(38)
    public static let control = FileOpcode(39)
    public static let poll = FileOpcode(40)
    public static let forgetMany = FileOpcode(42)
    public static let allocate = FileOpcode(43)
    public static let readDirectoryPlus = FileOpcode(44)
    public static let renameWithFlags = FileOpcode(45)
    public static let seek = FileOpcode(46)
    public static let copyRange = FileOpcode(47)
    public static let synchronizeFileSystem = FileOpcode(50)
    public static let temporaryFile = FileOpcode(51)
    public static let extendedStatus = FileOpcode(52)

    /// The specification's name, where it is one of those above.
    public var description: String { Self.names[rawValue] ?? "FUSE request \(rawValue)" }

    private static let names: [UInt32: String] = [
        1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR",
        10: "UNLINK", 11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ", 16: "WRITE", 17: "STATFS",
        18: "RELEASE", 20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH",
        26: "INIT", 27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR", 30: "FSYNCDIR", 31: "GETLK", 32: "SETLK",
        33: "SETLKW", 34: "ACCESS", 35: "CREATE", 36: "INTERRUPT", 37: "BMAP", 38: "DESTROY", 39: "IOCTL", 40: "POLL",
        42: "BATCH_FORGET", 43: "FALLOCATE", 44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK", 47: "COPY_FILE_RANGE",
        50: "SYNCFS", 51: "TMPFILE", 52: "STATX",
    ]
}
