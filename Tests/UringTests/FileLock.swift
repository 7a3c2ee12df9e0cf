import Glibc
import Platform

/// Whether a file can be locked, soon: a process that a test beside this one starts has all files until it becomes
/// another program.
func comesToLock(_ file: Int32) -> Bool {
    let end = monotonicNanoseconds() + 20_000_000_000
    while flock(file, LOCK_EX | LOCK_NB) != 0, monotonicNanoseconds() < end { pause(milliseconds: 1) }
    return flock(file, LOCK_EX | LOCK_NB) == 0
}
