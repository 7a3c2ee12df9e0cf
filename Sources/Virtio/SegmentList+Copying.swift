internal import Glibc

extension SegmentList {
    /// Copies bytes of the readable part, over segment borders. There are enough: the caller has checked.
    public func copyReadable(from start: Int, to target: UnsafeMutableRawBufferPointer) {
        var skip = start
        var done = 0
        var index = 0
        while done < target.count {
            precondition(index < readableCount)
            let segment = unsafe storage[index]
            index += 1
            if unsafe skip >= segment.iov_len {
                unsafe skip -= segment.iov_len
                continue
            }
            let part = unsafe min(segment.iov_len - skip, target.count - done)
            unsafe (target.baseAddress! + done).copyMemory(from: segment.iov_base + skip, byteCount: part)
            done += part
            skip = 0
        }
    }
}
