internal import CLinux
internal import Glibc
public import Platform

/// The locks that an open image holds: open file description locks on single bytes, far behind any data. They fall when
/// the open file is gone, and a write that the kernel still carries out for a dead worker keeps its open file: so they
/// tell more than whether a process lives. Workers on their own and supervisors take the same ones.
///
/// - **Custody**, exclusive, held on an open file that no request uses: nobody else serves this image. It falls when
///   its holder dies.
/// - **Holder**, a lock of the process and not of the open file, so that the kernel tells who has custody. It fences
///   nothing.
/// - **Generation**, shared, held on every open file that requests use. Whoever takes the image takes it exclusively
///   first: that waits until the last write of a dead worker has landed.
/// - **QEMU's** bytes, shared, as QEMU takes them: its programs refuse an image that is served, and we one that they
///   use.
public enum ImageLocks {
    /// QEMU uses bytes from 100 to 299.
    private static let custodyByte: Int64 = 0x4241_544f_4e01
    private static let generationByte: Int64 = 0x4241_544f_4e02
    private static let holderByte: Int64 = 0x4241_544f_4e03

    /// QEMU's permissions (block.h): those that a writing disk uses, and those that it leaves to nobody else.
    private static let consistentRead: Int64 = 0
    private static let write: Int64 = 1
    private static let resize: Int64 = 3
    private static let qemuUsed: Int64 = 100
    private static let qemuUnshared: Int64 = 200

    /// Tries to make sure that nobody else serves an image as long as `fd` is open.
    ///
    /// - Parameter fd: an open file of the image that no request will use.
    /// - Returns: false when another worker or supervisor serves it.
    public static func tryCustody(_ fd: borrowing OwnedFD, readOnly: Bool) -> Bool {
        lock(fd.number, kind(readOnly), custodyByte)
    }

    /// The process that has custody; nil when the kernel knows of none that can be seen from here.
    public static func holder(_ fd: borrowing OwnedFD, readOnly: Bool) -> Int32? {
        let pid = clinux_lock_holder(fd.number, kind(readOnly), holderByte)
        return pid > 0 ? pid : nil
    }

    /// Lets the kernel tell others who has custody. Such a lock falls whenever its process closes any open file of the
    /// image: so it is taken again after that. Nobody without custody takes it, and nothing depends on it.
    public static func nameHolder(_ fd: borrowing OwnedFD, readOnly: Bool) {
        _ = clinux_lock_byte(fd.number, Int32(CLINUX_LOCK_TRY_PROCESS), kind(readOnly), holderByte)
    }

    /// Keeps QEMU and its tools off an image as they keep each other off.
    ///
    /// - Throws: a sentence when one of them uses it.
    public static func excludeQEMU(
        _ fd: borrowing OwnedFD, path: String, readOnly: Bool
    ) throws(SystemError) {
        let used = readOnly ? [consistentRead] : [consistentRead, write]
        let unshared = readOnly ? [] : [write, resize]
        for byte in used.map({ qemuUsed + $0 }) + unshared.map({ qemuUnshared + $0 })
        where !lock(fd.number, Int16(F_RDLCK), byte) {
            throw SystemError(
                cannot: "serve", path, nil, advice: "Another program has locked it for itself alone")
        }
        for byte in used.map({ qemuUnshared + $0 }) + unshared.map({ qemuUsed + $0 })
        where clinux_lock_byte(fd.number, Int32(CLINUX_LOCK_TEST), Int16(F_WRLCK), byte) == 1 {
            throw SystemError(
                cannot: "serve", path, nil,
                advice: "Another program uses it, QEMU or qemu-img perhaps: end that one first")
        }
    }

    /// Whether nothing is written to an image any more on behalf of a worker that has died.
    ///
    /// - Parameter fd: the open file that has custody, so that nobody starts meanwhile.
    public static func isSettled(_ fd: borrowing OwnedFD) -> Bool {
        guard lock(fd.number, Int16(F_WRLCK), generationByte) else { return false }
        // It would keep our own workers out. Custody keeps everybody else out.
        unshare(fd.number)
        return true
    }

    /// Adds an open file to those that keep the next worker waiting as long as a request uses them.
    ///
    /// - Throws: what the kernel says.
    public static func share(_ number: Int32, path: String) throws(SystemError) {
        guard lock(number, Int16(F_RDLCK), generationByte) else { throw SystemError(cannot: "lock", path, .current) }
    }

    /// Nothing is under way on an open file any more: it keeps nobody waiting.
    public static func unshare(_ number: Int32) { _ = lock(number, Int16(F_UNLCK), generationByte) }

    private static func kind(_ readOnly: Bool) -> Int16 { Int16(readOnly ? F_RDLCK : F_WRLCK) }

    private static func lock(_ number: Int32, _ kind: Int16, _ byte: Int64) -> Bool {
        clinux_lock_byte(number, Int32(CLINUX_LOCK_TRY), kind, byte) == 0
    }
}
