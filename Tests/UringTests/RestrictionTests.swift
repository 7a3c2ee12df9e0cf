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
            // Nor can it lift that: registering is refused altogether.
            var file: Int32 = 0
            #expect(unsafe io_uring_register_files(&ring, &file, 1) == -EACCES)
            unsafe munmap(ring.sq.sqes, 8 * MemoryLayout<io_uring_sqe>.size)
            unsafe munmap(ring.sq.ring_ptr, ring.sq.ring_sz)
        }
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
