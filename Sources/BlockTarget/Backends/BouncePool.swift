internal import Glibc
internal import Platform

/// Aligned buffers for transfers whose guest memory does not meet what O_DIRECT asks for. A fixed number; a request
/// that finds none waits.
@usableFromInline
@safe struct BouncePool: ~Copyable, @unchecked Sendable {
    /// Bytes of one buffer; larger transfers go in parts.
    static let bufferBytes = 128 << 10
    static let bufferCount = 32
    static let byteCount = bufferBytes * bufferCount

    private let mapping: Mapping
    private var free = InlineArray<32, Int32>(repeating: -1)
    private var freeCount = 0
    /// Given back, and not to be used before what they carried has been published.
    private var retired = InlineArray<32, Int32>(repeating: -1)
    private var retiredCount = 0

    /// - Parameter memory: a file that outlives this process, with what the kernel puts into it for a request; nil:
    ///   memory of this process.
    init(memory: borrowing OwnedFD?) throws(Errno) {
        switch memory {
        case .some(let file): mapping = try Mapping(sharing: file, count: Self.byteCount)
        case .none: mapping = try Mapping(anonymous: Self.byteCount)
        }
        for index in 0..<Self.bufferCount { give(Int32(index)) }
    }

    /// Takes a buffer, or nil when all are in use.
    mutating func take() -> Int32? {
        guard freeCount > 0 else { return nil }
        freeCount -= 1
        return free[freeCount]
    }

    /// Takes the buffer that an adopted operation uses.
    ///
    /// - Returns: false when it is in use already.
    mutating func reserve(_ index: Int32) -> Bool {
        for place in 0..<freeCount where free[place] == index {
            freeCount -= 1
            free[place] = free[freeCount]
            return true
        }
        return false
    }

    /// Gives a buffer back that has carried a request. Until its completion is let go of, a successor would find it and
    /// take from the buffer what it brought: so nobody else may use it before `recycle`.
    mutating func retire(_ index: Int32) {
        precondition(retiredCount < Self.bufferCount, "a bounce buffer was given back twice")
        retired[retiredCount] = index
        retiredCount += 1
    }

    /// The completions taken so far have been let go of: the buffers that they brought can be used again.
    @usableFromInline
    mutating func recycle() {
        while retiredCount > 0 {
            retiredCount -= 1
            give(retired[retiredCount])
        }
    }

    /// Gives a buffer back.
    mutating func give(_ index: Int32) {
        precondition(freeCount < Self.bufferCount, "a bounce buffer was given back twice")
        free[freeCount] = index
        freeCount += 1
    }

    /// The first byte of a buffer, aligned to a page.
    @usableFromInline
    func address(of index: Int32) -> UnsafeMutableRawPointer {
        precondition(index >= 0 && index < Self.bufferCount)
        return unsafe mapping.base + Int(index) * Self.bufferBytes
    }
}

extension RequestSlot {
    /// Copies the next `count` bytes of the request's buffers to or from a bounce buffer; what is left to transfer
    /// stays.
    @usableFromInline
    func copyVectors(_ bounce: UnsafeMutableRawPointer, count: Int, toGuest: Bool) {
        var done = 0
        var index = 0
        while done < count {
            precondition(index < vectorCount)
            let vector = unsafe vectors[index]
            let part = unsafe min(vector.iov_len, count - done)
            if toGuest {
                unsafe vector.iov_base.copyMemory(from: bounce + done, byteCount: part)
            } else {
                unsafe (bounce + done).copyMemory(from: vector.iov_base, byteCount: part)
            }
            done += part
            index += 1
        }
    }
}
