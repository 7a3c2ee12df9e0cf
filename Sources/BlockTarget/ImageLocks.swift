internal import CLinux
internal import Glibc
internal import Platform

/// The locks that an open image holds: open file description locks on single bytes, far behind any data. They fall when
/// the open file is gone, and a write that the kernel still carries out for a dead worker keeps its open file: so they
/// tell more than whether a process lives.
///
/// - **Custody**, exclusive, held on an open file that no request uses: nobody else serves this image. It falls when
///   the worker dies.
/// - **Generation**, shared, held on every open file that requests use. Whoever starts takes it exclusively first: that
///   waits until the last write of a dead worker has landed.
/// - **QEMU's** bytes, shared, as QEMU takes them: its programs refuse an image that is served, and we one that they
///   use.
enum ImageLocks {
    /// QEMU uses bytes from 100 to 299.
    private static let custodyByte: Int64 = 0x4241_544f_4e01
    private static let generationByte: Int64 = 0x4241_544f_4e02

    /// QEMU's permissions (block.h): those that a writing disk uses, and those that it leaves to nobody else.
    private static let consistentRead = 0
    private static let write = 1
    private static let resize = 3
    private static let qemuUsed: Int64 = 100
    private static let qemuUnshared: Int64 = 200

    /// Makes sure that nobody else serves an image, now or as long as `fd` is open.
    ///
    /// - Parameter fd: an open file of the image that no request will use.
    /// - Throws: a sentence that says who is in the way.
    static func takeCustody(_ fd: borrowing OwnedFD, path: String, readOnly: Bool) throws(SystemError) {
        let type = Int16(readOnly ? F_RDLCK : F_WRLCK)
        if clinux_lock_byte(fd.number, Int32(CLINUX_LOCK_TRY), type, custodyByte) != 0 {
            throw refusal(path, "Another worker serves it: end that one first")
        }
        let used = readOnly ? [consistentRead] : [consistentRead, write]
        let unshared = readOnly ? [] : [write, resize]
        for permission in used { try lockShared(fd, qemuUsed + Int64(permission), path) }
        for permission in unshared { try lockShared(fd, qemuUnshared + Int64(permission), path) }
        let conflicts = used.map { qemuUnshared + Int64($0) } + unshared.map { qemuUsed + Int64($0) }
        for byte in conflicts
        where clinux_lock_byte(fd.number, Int32(CLINUX_LOCK_TEST), Int16(F_WRLCK), byte) == 1 {
            throw refusal(path, "Another program uses it, QEMU or qemu-img perhaps: end that one first")
        }
    }

    private static func lockShared(_ fd: borrowing OwnedFD, _ byte: Int64, _ path: String) throws(SystemError) {
        guard clinux_lock_byte(fd.number, Int32(CLINUX_LOCK_TRY), Int16(F_RDLCK), byte) == 0 else {
            throw refusal(path, "Another program has locked it for itself alone")
        }
    }

    private static func refusal(_ path: String, _ advice: String) -> SystemError {
        SystemError(cannot: "serve", path, nil, advice: advice)
    }

    /// Waits until nothing is written to an image any more on behalf of a worker that has died, then keeps the next one
    /// waiting in the same way. Custody is taken first: so the wait is for the storage only.
    ///
    /// - Parameter number: the descriptor of an open file that requests will use.
    /// - Parameter patienceMilliseconds: nil waits as long as it takes.
    static func fence(_ number: Int32, path: String, patienceMilliseconds: Int?) throws(SystemError) {
        do throws(Errno) {
            if let patienceMilliseconds {
                try tryFence(number, until: monotonicNanoseconds() + UInt64(patienceMilliseconds) * 1_000_000)
            } else {
                try retryingInterrupts {
                    clinux_lock_byte(number, Int32(CLINUX_LOCK_WAIT), Int16(F_WRLCK), generationByte)
                }
            }
            try share(number)
        } catch {
            guard error == .wouldBlock else { throw SystemError(cannot: "lock", path, error) }
            throw refusal(path, "The storage still carries out what a worker that died has asked of it: try again")
        }
    }

    /// Takes the generation byte exclusively. The kernel has no lock that waits for a limited time: so this tries again.
    private static func tryFence(_ number: Int32, until deadline: UInt64) throws(Errno) {
        while true {
            if clinux_lock_byte(number, Int32(CLINUX_LOCK_TRY), Int16(F_WRLCK), generationByte) == 0 { return }
            let error = Errno.current
            guard error == .wouldBlock || error == .permissionDenied else { throw error }
            guard monotonicNanoseconds() < deadline else { throw .wouldBlock }
            pause(milliseconds: 2)
        }
    }

    /// Adds an open file of the same worker to those that keep the next one waiting.
    static func share(_ number: Int32) throws(Errno) {
        try retryingInterrupts {
            clinux_lock_byte(number, Int32(CLINUX_LOCK_WAIT), Int16(F_RDLCK), generationByte)
        }
    }

    /// Nothing is under way on an open file any more: it keeps nobody waiting.
    static func unshare(_ number: Int32) {
        _ = clinux_lock_byte(number, Int32(CLINUX_LOCK_TRY), Int16(F_UNLCK), generationByte)
    }
}
