internal import CLinux
internal import Glibc

/// A region of memory mapped into this process, unmapped when its owner lets go of it.
@safe public struct Mapping: ~Copyable, @unchecked Sendable {
    /// The first byte.
    public let base: UnsafeMutableRawPointer
    /// Length in bytes.
    public let count: Int
    /// Its number with the memory guard, or -1.
    private let guardNumber: Int32

    /// Maps `count` bytes of a file, shared with whoever else maps it.
    ///
    /// - Parameter offset: where in the file; a multiple of the page size.
    /// - Parameter writable: false maps the pages read-only.
    /// - Parameter guarded: the file is a peer's, who may shorten it: see `SharedMemoryGuard`.
    /// - Throws: mmap's error; `noMemory` when there are 4096 guarded mappings already.
    public init(
        sharing fd: borrowing OwnedFD, offset: Int64 = 0, count: Int, writable: Bool = true, guarded: Bool = false
    ) throws(Errno) {
        let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
        try self.init(
            fd: fd.number, offset: offset, count: count, protection: protection, flags: MAP_SHARED, guarded: guarded)
    }

    /// Maps `count` zero bytes of private memory; pages cost nothing until they are touched.
    ///
    /// - Throws: mmap's error.
    public init(anonymous count: Int) throws(Errno) {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        try self.init(fd: -1, offset: 0, count: count, protection: PROT_READ | PROT_WRITE, flags: flags)
    }

    private init(
        fd: Int32, offset: Int64, count: Int, protection: Int32, flags: Int32, guarded: Bool = false
    ) throws(Errno) {
        guard count > 0 else { throw .invalidArgument }
        let address = unsafe mmap(nil, count, protection, flags, fd, off_t(offset))
        guard unsafe address != MAP_FAILED, let address = unsafe address else { throw .current }
        var number: Int32 = -1
        if guarded {
            // Whole pages, as the kernel has mapped them: a huge page has its size as the length already.
            number = unsafe clinux_guard_add(address, (count + 4095) & ~4095)
            if number < 0 {
                unsafe munmap(address, count)
                throw .noMemory
            }
        }
        unsafe self.base = address
        self.count = count
        guardNumber = number
    }

    /// Makes all pages present now and keeps them in memory for as long as they are mapped (mlock).
    ///
    /// - Throws: `noMemory` or `notPermitted` when the limit on locked memory (RLIMIT_MEMLOCK) is too small.
    public borrowing func pin() throws(Errno) {
        try retryingInterrupts { unsafe mlock(base, count) }
    }

    /// Makes all pages present now, changing nothing in them (MADV_POPULATE_WRITE), so that whoever uses them in a
    /// hurry need not wait for each. An advice: where the kernel cannot, they come when they are touched.
    public borrowing func populate() { unsafe makePresent(base, count) }

    /// Leaves the pages out of core dumps: guest memory makes them slow and is not ours to write down.
    public borrowing func excludeFromCoreDumps() {
        _ = unsafe madvise(base, count, MADV_DONTDUMP)
    }

    deinit {
        if guardNumber >= 0 { clinux_guard_remove(guardNumber) }
        unsafe munmap(base, count)
    }
}

/// Makes pages present now, changing nothing in them (MADV_POPULATE_WRITE). An advice: where the kernel cannot, they
/// come when they are touched.
///
/// - Parameter start: in a page that is mapped for writing.
public func makePresent(_ start: UnsafeMutableRawPointer, _ count: Int) {
    let lead = Int(UInt(bitPattern: start) & UInt(sysconf(Int32(_SC_PAGESIZE)) - 1))
    _ = unsafe madvise(start - lead, lead + count, Int32(CLINUX_MADV_POPULATE_WRITE))
}

/// Makes an anonymous file in memory, close-on-exec, of `count` bytes.
///
/// - Throws: memfd_create's or ftruncate's error.
public func makeMemoryFile(name: String, count: Int) throws(Errno) -> OwnedFD {
    let number = try retryingInterrupts {
        unsafe memfd_create(name, UInt32(CLINUX_MFD_CLOEXEC | CLINUX_MFD_ALLOW_SEALING))
    }
    let fd = OwnedFD(owning: number)
    try retryingInterrupts { ftruncate(fd.number, off_t(count)) }
    return fd
}

/// Lets nobody change the size of a file in memory any more.
///
/// - Throws: fcntl's error.
public func sealSize(of fd: borrowing OwnedFD) throws(Errno) {
    try retryingInterrupts { fcntl(fd.number, Int32(CLINUX_F_ADD_SEALS), Int32(CLINUX_F_SEAL_SIZE)) }
}

/// Whether a file is of memory alone: of memfd_create, tmpfs or hugetlbfs.
public func isMemoryFile(_ fd: borrowing OwnedFD) -> Bool {
    [0x0102_1994, 0x9584_58f6].contains(clinux_file_system_magic(fd.number))
}
