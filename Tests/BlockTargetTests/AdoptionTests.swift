import Custody
import Glibc
import SimulationKit
import Testing

@testable import BlockTarget

/// What a worker takes over that another has begun: the guest may have written another request in its place since.
@Suite("Adopted requests")
@safe struct AdoptionTests {
    /// Bytes that the guest's request has now.
    private static let bytes: UInt64 = 4096

    private func makeBackend() throws -> FileBackend<SimulatedEngine> {
        let access = ImageAccess(file: SimulatedStorage.directFile, unalignedFile: SimulatedStorage.bufferedFile)
        return try FileBackend(access, engine: SimulatedEngine(Disks.storage()))
    }

    /// Adopts a request of `bytes`, and lets the kernel say that `result` bytes are done.
    ///
    /// - Returns: whether it was taken over, and what was left of it then.
    private func adopt(
        _ operation: BlockOperation, method: UInt8, done: UInt64 = 0, part: UInt64, result: Int32
    ) throws -> (isAccepted: Bool, left: UInt64) {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: Int(Self.bytes), alignment: 4096)
        let segments = UnsafeMutablePointer<iovec>.allocate(capacity: 1)
        let ranges = UnsafeMutablePointer<BlockRange>.allocate(capacity: 1)
        defer {
            unsafe buffer.deallocate()
            unsafe segments.deallocate()
            unsafe ranges.deallocate()
        }
        unsafe segments.initialize(to: iovec(iov_base: buffer, iov_len: Int(Self.bytes)))
        unsafe ranges.initialize(to: BlockRange(offset: 0, length: Self.bytes))
        var slot = unsafe RequestSlot(shortSegments: segments, longSegments: segments, ranges: ranges)
        slot.operation = operation
        (slot.remaining, slot.totalBytes, slot.vectorCount, slot.rangeCount) = (Self.bytes, Self.bytes, 1, 1)
        var backend = try makeBackend()
        let state = UInt64(method) | part << 32
        guard backend.adopt(&slot, RequestProgress(done: done, state: state)) else { return (false, 0) }
        // It traps if it takes more away than there is.
        _ = backend.finish(&slot, result: result)
        return (true, operation.worksOnRanges ? unsafe ranges.pointee.length : slot.remaining)
    }

    @Test("a transfer that is longer than what the guest asks for now is no part of it")
    func shorterTransfer() throws {
        for part in [Self.bytes + 1, 1 << 31, UInt64(UInt32.max)] {
            #expect(try !adopt(.write, method: 0, part: part, result: Int32(clamping: part)).isAccepted)
            #expect(try !adopt(.read, method: 0, done: 512, part: part - 512, result: 512).isAccepted)
        }
        let half = Self.bytes / 2
        #expect(try adopt(.read, method: 0, part: Self.bytes, result: Int32(half)) == (true, half))
        #expect(try adopt(.write, method: 0, done: half, part: half, result: 512) == (true, half - 512))
    }

    @Test("zeroes that are written beyond what the guest asks for now are no part of it")
    func shorterRange() throws {
        let written = RangeMethod.write
        #expect(try !adopt(.writeZeroes, method: written, part: 256 << 10, result: 256 << 10).isAccepted)
        #expect(try !adopt(.writeZeroes, method: written, done: 512, part: Self.bytes, result: 512).isAccepted)
        #expect(try adopt(.writeZeroes, method: written, part: Self.bytes, result: 512) == (true, Self.bytes - 512))
        // Worked on whole: what the record says of a part is of an earlier range.
        #expect(try adopt(.discard, method: RangeMethod.punch, part: 256 << 10, result: 0).isAccepted)
    }
}
