/// Whether a file system with this magic number is known to punch holes. The ext family counts as ext4: a driver that
/// cannot do it after all says so when a hole is asked for, and another method takes over then.
func isKnownToPunchHoles(fileSystemMagic magic: UInt32) -> Bool {
    switch magic {
    // ext4, XFS, btrfs, tmpfs, F2FS
    case 0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010: true
    default: false
    }
}
