import CLiburing
import Custody
import Glibc
import Platform
import Testing

@testable import Uring

/// What a worker can ask of the rings that a supervisor gives it.
@Suite("Rings in custody")
struct RestrictionTests {
    @Test func `what no disk needs is refused, by the kernel and for good`() throws {
        let kept = try KernelRing(entries: 8, completions: 8)
        for _ in 0..<2 {
            // Each worker maps the ring anew.
            var parameters = try #require(
                unsafe kept.parameters.withUnsafeBytes { bytes in
                    unsafe bytes.loadUnaligned(as: io_uring_params.self)
                } as io_uring_params?)
            var ring = unsafe io_uring()
            #expect(unsafe io_uring_queue_mmap(kept.fd.number, &parameters, &ring) == 0)
            #expect(unsafe Self.result(of: IORING_OP_OPENAT, on: &ring) == -EACCES)
            #expect(unsafe Self.result(of: IORING_OP_CONNECT, on: &ring) == -EACCES)
            #expect(unsafe Self.result(of: IORING_OP_FSYNC, on: &ring) == -EBADF)
            // Nor can it lift that: nothing may be registered but its own two open files.
            var files: [Int32] = [0, 0, 0]
            #expect(unsafe io_uring_register_files(&ring, &files, 1) == -EACCES)
            #expect(unsafe io_uring_unregister_files(&ring) == -EACCES)
            #expect(unsafe io_uring_register_personality(&ring) == -EACCES)
            #expect(unsafe io_uring_register_files_update(&ring, 0, &files, 3) == -EINVAL)
            #expect(unsafe io_uring_register_files_update(&ring, 0, &files, 2) == 2)
            unsafe munmap(ring.sq.sqes, 8 * MemoryLayout<io_uring_sqe>.size)
            unsafe munmap(ring.sq.ring_ptr, ring.sq.ring_sz)
        }
    }

    @Test func `a worker's files stay open with the ring until the next worker's take their place`() throws {
        let kept = try KernelRing(entries: 8, completions: 8)
        let name = "/tmp/baton-kept-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        defer { unsafe unlink(name) }
        func open() -> OwnedFD { OwnedFD(owning: unsafe Glibc.open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)) }
        /// A worker that writes, and is gone.
        func work(_ file: borrowing OwnedFD) throws {
            var ring = try Ring(adopting: try kept.fd.duplicate(), parameters: kept.parameters)
            ring.keepOpen(file.number, file.number)
            var bytes: [UInt8] = [1, 2, 3, 4]
            let isQueued = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe ring.enqueue(
                    .write(
                        file: file.number, buffer: buffer.baseAddress!, count: 4, offset: 0, durable: false), token: 7)
            }
            #expect(isQueued)
            ring.submit()
            var completion: IOCompletion?
            while completion == nil {
                ring.runDeferredWork()
                completion = ring.nextCompletion()
            }
            ring.releaseCompletions()
            #expect(completion?.token == 7)
            #expect(completion?.result == 4)
        }
        let rival = open()
        do {
            let first = open()
            #expect(flock(first.number, LOCK_EX | LOCK_NB) == 0)
            try work(first)
        }
        #expect(flock(rival.number, LOCK_EX | LOCK_NB) != 0, "the ring keeps it open")
        try work(open())
        #expect(comesToLock(rival.number))
    }

    /// Asks for an operation on a file that is not open, and waits for the answer.
    private static func result(of operation: io_uring_op, on ring: inout io_uring) -> Int32? {
        let entry = unsafe ring.sq.sqes + Int(ring.sq.ktail.pointee & ring.sq.ring_mask)
        unsafe io_uring_prep_rw(Int32(operation.rawValue), entry, -1, nil, 0, 0)
        unsafe ring.sq.array[Int(ring.sq.ktail.pointee & ring.sq.ring_mask)] = ring.sq.ktail.pointee & ring.sq.ring_mask
        unsafe ring.sq.ktail.pointee += 1
        guard unsafe io_uring_enter(UInt32(ring.ring_fd), 1, 1, UInt32(IORING_ENTER_GETEVENTS), nil) == 1 else {
            return nil
        }
        let completion = unsafe ring.cq.cqes + Int(ring.cq.khead.pointee & ring.cq.ring_mask)
        unsafe ring.cq.khead.pointee += 1
        return unsafe completion.pointee.res
    }
}
