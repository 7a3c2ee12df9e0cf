internal import CLinux
internal import Glibc
internal import Platform

/// The mounts below a share's root, by the numbers that the kernel gives them.
///
/// Each worker sees mounts of its own, which are copies of the host's, so that its numbers are not those of the worker
/// before; and what the share's table holds open stays on the mounts of the worker that has opened it. All of these are
/// one place in the table, which knows a mount by what stays the same (`MountIdentity`).
///
/// The kernel uses a number again when its mount is gone. So none of these goes: the table's descriptors are on some,
/// descriptors of this are on the others.
struct KnownMounts: ~Copyable {
    private struct Known {
        var number: UInt64
        var place: UInt32
        /// -1: the table's descriptor is on this very mount.
        var pin: Int32
    }

    private var known: [Known] = []

    /// Of each mount in the table: this worker's, and that of the worker that has found it.
    private static let maximumCount = 64

    deinit {
        for mount in known where mount.pin >= 0 { close(mount.pin) }
    }

    func place(of number: UInt64) -> UInt32? { known.first { $0.number == number }?.place }

    /// A directory on this worker's own mount of this place. A mount of a worker that is gone has lost the mounts below
    /// it: a name that should lead to one leads to what it hides.
    func directory(at place: UInt32) -> Int32? { known.first { $0.place == place && $0.pin >= 0 }?.pin }

    /// - Parameter pin: a directory on the mount, open for real, which is this table's from now on; -1: another keeps
    ///   it.
    mutating func add(_ number: UInt64, place: UInt32, pin: Int32) {
        guard known.count < Self.maximumCount, self.place(of: number) == nil else {
            if pin >= 0 { close(pin) }
            return
        }
        known.append(Known(number: number, place: place, pin: pin))
    }
}

/// What makes a mount below the share's root the same mount, whichever worker sees it: where it hangs, what its root
/// is, and what may be done there. The same directory mounted twice, once for reading only, is two.
struct MountIdentity {
    /// The directory that it hangs in.
    var parentMount: UInt32
    var parentInode: UInt64
    /// Its root.
    var device: UInt64
    var inode: UInt64
    /// As statvfs tells.
    var flags: UInt64

    /// Never 0.
    var value: UInt64 {
        var hash: UInt64 = 0x9e37_79b9_7f4a_7c15 ^ UInt64(parentMount)
        for part in [parentInode, device, inode, flags] {
            hash = (hash ^ part) &* 0xff51_afd7_ed55_8ccd
            hash ^= hash >> 32
        }
        return hash | 1
    }
}
