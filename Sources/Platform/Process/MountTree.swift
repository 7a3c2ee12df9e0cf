internal import CLinux

/// A tree of mounts of a directory and of all that is mounted below it, which is in no namespace yet: what a process
/// that serves the directory gets as its root. No device in it can be opened, and no program started; `..` at its root
/// leads nowhere.
///
/// - Parameter directory: may be open with O_PATH.
/// - Throws: EPERM without CAP_SYS_ADMIN.
public func cloneMounts(of directory: borrowing OwnedFD, readOnly: Bool) throws(Errno) -> OwnedFD {
    OwnedFD(owning: try retryingInterrupts { clinux_clone_tree(directory.number, readOnly ? 1 : 0) })
}
