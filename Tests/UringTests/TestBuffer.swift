import Glibc

/// Memory that stays where it is, for operations that the kernel carries out later.
@safe final class TestBuffer {
    @unsafe let base: UnsafeMutableRawPointer
    let count: Int

    init(_ count: Int) {
        unsafe base = .allocate(byteCount: count, alignment: 4096)
        self.count = count
        fill(0)
    }

    deinit {
        unsafe base.deallocate()
    }

    var bytes: [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: base, count: count)) }

    func fill(_ byte: UInt8) {
        unsafe memset(base, Int32(byte), count)
    }
}

/// A vector table over equal pieces of a buffer.
@safe final class TestVectors {
    @unsafe let base: UnsafeMutablePointer<iovec>
    private let count: Int

    init(_ buffer: TestBuffer, pieces: Int) {
        unsafe base = .allocate(capacity: pieces)
        count = pieces
        let length = buffer.count / pieces
        for index in 0..<pieces {
            unsafe (base + index).initialize(to: iovec(iov_base: buffer.base + length * index, iov_len: length))
        }
    }

    deinit {
        unsafe base.deallocate()
    }

    /// Makes every entry point to nowhere.
    func spoil() {
        for index in 0..<count { unsafe base[index] = unsafe iovec(iov_base: nil, iov_len: 1 << 40) }
    }
}
