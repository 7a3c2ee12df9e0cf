internal import CLinux
public import Platform

/// A kernel ring (io_uring instance) as whoever keeps it sees it: a descriptor that does nothing but exist. Workers map
/// it one after the other.
///
/// COOP_TASKRUN|TASKRUN_FLAG: completions are never forced on a running thread by an interrupt; a flag says that work
/// waits. DEFER_TASKRUN and SINGLE_ISSUER stay off: with them a successor could neither reap nor use the ring.
///
/// A worker that a guest has got hold of can ask for nothing on it but transfers between what it has open already: no
/// seccomp filter sees what is asked through a ring, so the ring itself refuses the rest (-EACCES). That lasts as long
/// as the ring, whoever uses it.
public struct KernelRing: ~Copyable, Sendable {
    public let fd: OwnedFD
    /// What io_uring_setup said, for the session record.
    public let parameters: [UInt8]

    /// What workers do with a ring: it refuses everything else.
    public enum Use: Sendable, Hashable {
        /// A disk's transfers, and a connection's messages. It keeps the two open files of the worker that has it.
        case disk
        /// A shared directory's transfers and changes of names.
        case share
        /// Keeping open files in the ring's own table, which has so many places.
        case files(UInt32)
    }

    /// Makes a ring.
    ///
    /// - Parameters:
    ///   - entries: operations that can be queued before a submit; the kernel rounds up to a power of two.
    ///   - completions: operations that can be in flight without a completion taken.
    /// - Throws: a sentence that says why this machine gives no ring, and what to do.
    public init(entries: UInt32, completions: UInt32, for use: Use = .disk) throws(SystemError) {
        var parameters = [UInt8](repeating: 0, count: 120)
        let operations = use.operations
        let files = use.fileCount
        let number = unsafe clinux_make_ring(
            entries, completions, operations, UInt32(operations.count), files, use.registration, &parameters)
        if number < 0, case .files = use {
            throw SystemError(
                cannot: "set up", "a kernel ring that keeps \(files) open files", .current,
                advice: "A share needs Linux 6.8 or newer, and a limit on open files (ulimit -n) that is no lower")
        }
        guard number >= 0 else {
            throw SystemError(
                cannot: "set up", "a kernel ring", .current,
                advice: "Baton needs Linux 6.1 or newer with io_uring allowed (sysctl kernel.io_uring_disabled=0)")
        }
        fd = OwnedFD(owning: number)
        self.parameters = parameters
    }
}

extension KernelRing.Use {
    /// Places in the ring's own table of files: a disk has an open file for aligned and one for other transfers.
    fileprivate var fileCount: UInt32 {
        switch self {
        case .disk: 2
        case .share: 0
        case .files(let count): count
        }
    }

    /// What a worker may register with it, by linux/io_uring.h's number; -1: nothing.
    fileprivate var registration: Int32 {
        switch self {
        case .disk: 6  // IORING_REGISTER_FILES_UPDATE
        case .share: 9  // IORING_REGISTER_PERSONALITY
        case .files: -1
        }
    }

    /// linux/io_uring.h
    fileprivate var operations: [UInt8] {
        switch self {
        case .disk:
            [
                1,  // READV
                2,  // WRITEV
                3,  // FSYNC
                9,  // SENDMSG
                17,  // FALLOCATE
                22,  // READ
                23,  // WRITE
                27,  // RECV
                46,  // URING_CMD
            ]
        case .share:
            [
                1,  // READV
                2,  // WRITEV
                3,  // FSYNC
                17,  // FALLOCATE
                18,  // OPENAT
                22,  // READ
                23,  // WRITE
                35,  // RENAMEAT
                36,  // UNLINKAT
                37,  // MKDIRAT
                38,  // SYMLINKAT
                39,  // LINKAT
            ]
        case .files:
            [
                20,  // FILES_UPDATE
                54,  // FIXED_FD_INSTALL
            ]
        }
    }
}

/// Has a disk's kernel ring keep no file of a worker open any more. Does nothing to others.
public func forgetFiles(ofRing number: Int32) { clinux_forget_files(number) }

/// A look at a kernel ring that somebody else uses.
public struct KernelRingSight: ~Copyable, Sendable {
    private let mapping: Mapping
    private let parameters: [UInt8]

    /// - Parameters:
    ///   - fd: of the ring; it may be closed afterwards.
    ///   - parameters: as the session record has them.
    /// - Throws: when it cannot be mapped.
    public init(_ fd: borrowing OwnedFD, parameters: [UInt8]) throws(Errno) {
        precondition(parameters.count == 120)
        mapping = try Mapping(sharing: fd, count: 4096, writable: false)
        self.parameters = parameters
    }

    /// Whether the kernel has something for the ring's user that he has not taken.
    public var hasWork: Bool { unsafe clinux_ring_has_work(mapping.base, parameters) != 0 }
}
