public import Glibc

/// The buffers of one request, as host memory: first those the device reads, then those it writes.
///
/// The storage belongs to the request's slot. It may have two parts, a short one that most chains fit into, so that the
/// slots of many requests lie close together, and a long one for the others. A chain with more segments is malformed.
@safe public struct SegmentList {
    /// Room for `capacity` segments; the long part, once the chain did not fit into the short one.
    @inlinable public var storage: UnsafeMutablePointer<iovec> { unsafe storageValue }
    @inlinable public var capacity: Int { capacityValue }
    @usableFromInline var storageValue: UnsafeMutablePointer<iovec>
    @usableFromInline var capacityValue: Int
    @usableFromInline let longStorage: UnsafeMutablePointer<iovec>?
    @usableFromInline let longCapacity: Int
    /// Segments that the device reads, from the start of `storage`.
    public var readableCount = 0
    /// Segments that the device writes, behind them.
    public var writableCount = 0
    /// Bytes in the readable segments.
    public var readableBytes: UInt64 = 0
    /// Bytes in the writable segments.
    public var writableBytes: UInt64 = 0

    @inlinable
    public init(storage: UnsafeMutablePointer<iovec>, capacity: Int) {
        unsafe self.init(storage: storage, capacity: capacity, longStorage: nil, longCapacity: 0)
    }

    /// - Parameters:
    ///   - storage: the short part, room for `capacity` segments.
    ///   - longStorage: room for `longCapacity` segments, more than `capacity`.
    @inlinable
    public init(
        storage: UnsafeMutablePointer<iovec>, capacity: Int, longStorage: UnsafeMutablePointer<iovec>?,
        longCapacity: Int
    ) {
        unsafe storageValue = storage
        capacityValue = capacity
        unsafe self.longStorage = longStorage
        self.longCapacity = longCapacity
    }

    /// Goes on in the long part.
    ///
    /// - Returns: false when there is none, or it is in use.
    @usableFromInline
    @inline(never)
    mutating func lengthen() -> Bool {
        guard let longStorage = unsafe longStorage, longCapacity > capacity else { return false }
        unsafe longStorage.update(from: storage, count: readableCount + writableCount)
        unsafe storageValue = longStorage
        capacityValue = longCapacity
        return true
    }
}

/// What a walk along a chain found.
public enum ChainVerdict: Sendable {
    /// All buffers are in guest memory, in legal order.
    case sound
    /// The chain ends properly, but something in it is wrong; its last writable byte, if any, can still take a status.
    case faulty(ChainFault)
    /// The chain has no end that could be found; nothing can be written.
    case endless(ChainFault)
}

/// What is wrong with a chain. Each is counted; none stops the device.
public enum ChainFault: UInt8, Sendable {
    case descriptorIndex
    case tooLong
    case badIndirectTable
    case nestedIndirect
    case indirectNotAgreed
    case badAddress
    case readableAfterWritable
    case tooManySegments
}

/// The most descriptors that a chain may have, direct and indirect ones together. Drivers stay below their queue size,
/// which is at most 1024 here; the kernel takes no more than 1024 segments at once (UIO_MAXIOV).
@inlinable public var maximumChainLength: Int { 1024 }

extension SplitVirtqueue {
    /// Walks the chain that begins at `head` and collects its buffers. Each descriptor is read once.
    ///
    /// - Parameters:
    ///   - head: below `size`.
    ///   - memory: where guest addresses lead.
    ///   - segments: empty on entry.
    @inlinable
    public func walk(
        from head: UInt16, memory: inout GuestMemoryView, into segments: inout SegmentList
    ) -> ChainVerdict {
        var walker = ChainWalker()
        var current = descriptor(head)
        while true {
            if current.isIndirect { return walkIndirect(current, memory: &memory, into: &segments, &walker) }
            walker.add(current, memory: &memory, to: &segments)
            if !current.hasNext { return walker.verdict }
            guard walker.count < Int(size) else { return .endless(.tooLong) }
            guard current.next < size else { return .endless(.descriptorIndex) }
            current = descriptor(current.next)
        }
    }

    /// Goes on in an indirect table, which ends the chain (VIRTIO 1.2, 2.7.5.3).
    @usableFromInline
    func walkIndirect(
        _ reference: Descriptor, memory: inout GuestMemoryView, into segments: inout SegmentList,
        _ walker: inout ChainWalker
    ) -> ChainVerdict {
        guard allowsIndirect else { return .endless(.indirectNotAgreed) }
        let count = Int(reference.length / 16)
        guard !reference.hasNext, reference.length % 16 == 0, count >= 1, count <= maximumChainLength else {
            return .endless(.badIndirectTable)
        }
        guard !reference.address.addingReportingOverflow(UInt64(reference.length) - 1).overflow,
            let table = memory.translate(reference.address)
        else { return .endless(.badIndirectTable) }
        let whole = table.count >= UInt64(reference.length)
        let limit = walker.count + count
        var index = 0
        while true {
            let current: Descriptor
            if whole {
                current = unsafe Descriptor(at: table.host + 16 * index)
            } else {
                // The table crosses regions: slow, rare, legal.
                var copy: (UInt64, UInt64) = (0, 0)
                guard unsafe memory.copyOut(reference.address + UInt64(16 * index), to: &copy, count: 16) else {
                    return .endless(.badIndirectTable)
                }
                current = unsafe Descriptor(at: &copy)
            }
            if current.isIndirect { return .endless(.nestedIndirect) }
            walker.add(current, memory: &memory, to: &segments)
            if !current.hasNext { return walker.verdict }
            guard walker.count < limit else { return .endless(.tooLong) }
            guard Int(current.next) < count else { return .endless(.descriptorIndex) }
            index = Int(current.next)
        }
    }
}

/// The state of one walk: collects the buffers of a chain, whichever ring it is in.
public struct ChainWalker {
    @usableFromInline var count = 0
    @usableFromInline var fault: ChainFault?

    @inlinable
    public init() {}

    /// What was found, when the chain has ended.
    @inlinable
    public var verdict: ChainVerdict {
        if let fault { return .faulty(fault) }
        return .sound
    }

    /// Adds a descriptor's buffer. After a fault only the chain's last writable buffer still matters: for its status.
    @inlinable
    public mutating func add(_ descriptor: Descriptor, memory: inout GuestMemoryView, to segments: inout SegmentList) {
        count += 1
        if !descriptor.isWritable, segments.writableCount > 0 { fault = fault ?? .readableAfterWritable }
        if descriptor.length == 0 { return }
        var address = descriptor.address
        // The last byte may be the last there is.
        if address.addingReportingOverflow(UInt64(descriptor.length) - 1).overflow {
            fault = fault ?? .badAddress
            if descriptor.isWritable { dropWritable(&segments) }
            return
        }
        var rest = UInt64(descriptor.length)
        while rest > 0 {
            guard let span = memory.translate(address) else {
                fault = fault ?? .badAddress
                if descriptor.isWritable { dropWritable(&segments) }
                return
            }
            let part = min(span.count, rest)
            if segments.readableCount + segments.writableCount == segments.capacity, !segments.lengthen() {
                fault = fault ?? .tooManySegments
                guard descriptor.isWritable else { return }
                // Keep the newest writable buffer in the last place: the status may be in it.
                if segments.writableCount > 0 { segments.writableCount -= 1 } else { segments.readableCount -= 1 }
            }
            let index = segments.readableCount + segments.writableCount
            unsafe segments.storage[index] = unsafe iovec(iov_base: span.host, iov_len: Int(part))
            if descriptor.isWritable {
                segments.writableCount += 1
                segments.writableBytes += part
            } else if fault == nil {
                segments.readableCount += 1
                segments.readableBytes += part
            }
            rest -= part
            address &+= part
        }
    }

    /// A writable buffer outside guest memory: if it is the last one, there is no place for a status.
    @inlinable
    mutating func dropWritable(_ segments: inout SegmentList) {
        segments.writableCount = 0
        segments.writableBytes = 0
    }
}
