public import CWire
public import Glibc
internal import Uring
public import Virtio

/// What a request asks for, in the terms of a file.
///
/// The numbers are those of `RequestKind`, which counts them.
public enum BlockOperation: UInt8, Sendable {
    case read
    case write
    case flush
    case identify
    case discard
    /// Write zeroes and keep the space allocated.
    case writeZeroes
    /// Write zeroes; the space may be freed.
    case writeZeroesUnmapping

    /// Works on ranges, not on buffers.
    var worksOnRanges: Bool { self == .discard || self == .writeZeroes || self == .writeZeroesUnmapping }
}

/// What the status byte says (VIRTIO 1.2, 5.2.6).
public enum BlockStatus: UInt8, Sendable {
    case ok = 0
    case ioError = 1
    case unsupported = 2
}

/// A part of the disk, in bytes.
public struct BlockRange: Sendable {
    public var offset: UInt64
    public var length: UInt64
}

/// The place of one request between its arrival and its answer, one for each possible head of a chain.
///
/// A backend works through a slot by taking from the front: `vectors` and `offset` name what is left to transfer, or
/// `ranges` what is left to discard or zero.
@safe public struct RequestSlot {
    // The order is that of use: what each transfer touches lies in two cache lines.

    /// Names the request in an engine: see `RequestToken`.
    public var token: UInt64 = 0
    /// Between arrival and answer.
    public var isActive = false
    public var operation = BlockOperation.flush
    /// A write must be on stable storage before it is answered: the driver has turned the write cache off.
    public var isDurable = false
    /// The write cache was turned off after this was started: it is made durable before it is answered.
    public var mustSynchronize = false
    /// The operation that makes it durable is under way.
    public var isSynchronizing = false
    /// Its operation was started by a worker before this one.
    public var isAdopted = false
    /// An adopted one that does not fit its record: answer it with an error when the kernel is done with it.
    @usableFromInline var isRefused = false
    /// How the part that is under way goes to the storage: a backend's own code, 0 at the start.
    public var method: UInt8 = 0
    /// The first buffer of what is left.
    public var vectors: UnsafeMutablePointer<iovec>
    /// The guest's status byte.
    @usableFromInline var status: UnsafeMutablePointer<UInt8>?
    /// The segments of the chain: in `shortSegments` or in `longSegments`.
    @usableFromInline var segmentStorage: UnsafeMutablePointer<iovec>
    /// Where the transfer goes on, in bytes from the start of the disk.
    public var offset: UInt64 = 0
    /// Bytes left to transfer.
    public var remaining: UInt64 = 0
    /// Bytes of the part that is under way.
    public var partLength: UInt64 = 0

    /// Buffers left.
    public var vectorCount = 0
    /// Bytes of the whole transfer, or of all ranges.
    @usableFromInline var totalBytes: UInt64 = 0
    /// Bytes written to the guest when all goes well, the status byte included.
    @usableFromInline var writtenOnSuccess: UInt32 = 0
    /// A bounce buffer that carries part of the request, or -1.
    public var bounce: Int32 = -1
    /// Bytes that `advance` has dropped from the front of the first buffer.
    private var droppedBytes = 0
    /// The buffers that the device writes, without the status byte: their place in the segments, and how many.
    private var writableStart = 0
    @usableFromInline var writableCount = 0
    /// Bytes done of the range at hand.
    @usableFromInline var rangesDone: UInt64 = 0
    /// Times the storage has told to try again.
    public var attempts: UInt16 = 0
    /// The slot behind this one in the list of those that wait for room, or -1.
    @usableFromInline var nextStalled: Int32 = -1

    /// Room for the segments of most chains, and for those of any.
    private let shortSegments: UnsafeMutablePointer<iovec>
    private let longSegments: UnsafeMutablePointer<iovec>
    /// The ranges of DISCARD and WRITE_ZEROES.
    public let ranges: UnsafeMutablePointer<BlockRange>
    /// The range to work on now.
    public var rangeIndex = 0
    public var rangeCount = 0

    init(
        shortSegments: UnsafeMutablePointer<iovec>, longSegments: UnsafeMutablePointer<iovec>,
        ranges: UnsafeMutablePointer<BlockRange>
    ) {
        unsafe self.shortSegments = shortSegments
        unsafe self.longSegments = longSegments
        unsafe self.ranges = ranges
        unsafe segmentStorage = shortSegments
        unsafe vectors = shortSegments
    }

    /// Segments in the short part.
    static var shortCapacity: Int { 16 }
    /// Room for every buffer of the longest chain, each crossing one region border, as far as the kernel takes them.
    static var longCapacity: Int { maximumChainLength }

    /// An empty list for the chain's segments.
    @usableFromInline var emptySegments: SegmentList {
        unsafe SegmentList(
            storage: shortSegments, capacity: Self.shortCapacity, longStorage: longSegments,
            longCapacity: Self.longCapacity)
    }

    /// Its operation moves data: a result of 0 says that none was moved.
    var expectsBytes: Bool { (operation == .read || operation == .write) && !isSynchronizing }

    /// Makes an accepted request ready to be started.
    @usableFromInline
    mutating func prepare(queue: UInt16, head: UInt16, durable: Bool) {
        token = RequestToken(sequence: RequestToken(rawValue: token).sequence, queue: queue, head: head).rawValue
        isAdopted = false
        rangesDone = 0
        isDurable = durable
        isSynchronizing = false
        mustSynchronize = false
        attempts = 0
        bounce = -1
        method = 0
        partLength = 0
    }

    /// A buffer that the device writes, whole: also what was dropped of it.
    func writableSegment(_ index: Int) -> iovec {
        let place = unsafe segmentStorage + (writableStart + index)
        var segment = unsafe place.pointee
        if unsafe place == vectors {
            unsafe segment.iov_base -= droppedBytes
            unsafe segment.iov_len += droppedBytes
        }
        return unsafe segment
    }

    /// Answers: the guest's status byte.
    // Called, it would be given a copy of the whole slot.
    @inlinable
    @inline(__always)
    func writeStatus(_ value: BlockStatus) {
        if let status = unsafe status { unsafe wire_store8(status, value.rawValue) }
    }

    /// Drops `count` bytes from the front of what is left to transfer.
    public mutating func advance(_ count: UInt64) {
        offset += count
        remaining -= count
        var count = Int(count)
        while count > 0 {
            let length = unsafe vectors.pointee.iov_len
            if count < length {
                unsafe vectors.pointee.iov_base += count
                unsafe vectors.pointee.iov_len = length - count
                droppedBytes += count
                return
            }
            count -= length
            // Whole again, for who marks what was written.
            unsafe vectors.pointee.iov_base -= droppedBytes
            unsafe vectors.pointee.iov_len += droppedBytes
            droppedBytes = 0
            unsafe vectors += 1
            vectorCount -= 1
        }
    }
}

/// What a parser made of a chain.
@usableFromInline
enum ParsedRequest {
    /// Carry it out; the slot is filled in.
    case accepted
    /// Answer with this status.
    case refused(BlockStatus)
    /// Nothing can be written to the guest: return it with length 0.
    case unanswerable
    /// Nothing to carry out: the answer is ready.
    case finished
}

/// The rules that requests are checked against; the disk's, as negotiated with this driver.
@usableFromInline
struct RequestRules {
    var sectors: UInt64
    var isReadOnly: Bool
    var allowsDiscard: Bool
    var allowsWriteZeroes: Bool
    /// 20 bytes, padded with zeroes.
    var identity: InlineArray<20, UInt8>
}

extension RequestRules {
    /// - Parameter features: as agreed with the driver.
    init(_ disk: DiskDescription, features: UInt64) {
        func agreed(_ bit: Int) -> Bool { features & (1 << UInt64(bit)) != 0 }
        sectors = disk.sectors
        isReadOnly = disk.isReadOnly
        allowsDiscard = agreed(WIRE_VIRTIO_BLK_F_DISCARD)
        allowsWriteZeroes = agreed(WIRE_VIRTIO_BLK_F_WRITE_ZEROES)
        identity = InlineArray(repeating: 0)
        for (index, byte) in disk.serial.utf8.prefix(20).enumerated() { identity[index] = byte }
    }
}

extension RequestSlot {
    /// Finds the place of the answer, which is all that a request needs that is not carried out.
    ///
    /// - Returns: the segment that it is the last byte of; nil when there is none.
    @inline(__always)
    @usableFromInline
    mutating func findStatus(_ segments: SegmentList, _ verdict: ChainVerdict) -> UnsafeMutablePointer<iovec>? {
        writableCount = 0
        unsafe status = nil
        // Of the slot's last request, which may have ended part-way: this one may be answered without being started.
        droppedBytes = 0
        if case .endless = verdict { return nil }
        guard segments.writableCount > 0 else { return nil }
        let lastIndex = segments.readableCount + segments.writableCount - 1
        let last = unsafe segmentStorage + lastIndex
        unsafe status = (last.pointee.iov_base + (last.pointee.iov_len - 1)).assumingMemoryBound(to: UInt8.self)
        return unsafe last
    }

    /// Reads header and ranges of a request, checks them, and fills in the slot. Everything read from the guest is
    /// copied first. Sector arithmetic cannot overflow: a sector is compared before it is multiplied.
    @usableFromInline
    mutating func parse(_ segments: SegmentList, verdict: ChainVerdict, rules: borrowing RequestRules) -> ParsedRequest
    {
        guard let last = unsafe findStatus(segments, verdict) else { return .unanswerable }
        guard case .sound = verdict, segments.readableBytes >= 16 else { return .refused(.ioError) }
        var header: (UInt64, UInt64) = (0, 0)
        if unsafe segmentStorage.pointee.iov_len >= 16 {
            let base = unsafe segmentStorage.pointee.iov_base!
            unsafe header = (wire_load64(base), wire_load64(base + 8))
        } else {
            unsafe withUnsafeMutableBytes(of: &header) { unsafe segments.copyReadable(from: 0, to: $0) }
        }
        let type = Int(UInt32(truncatingIfNeeded: header.0))
        switch type {
        case WIRE_VIRTIO_BLK_T_IN:
            unsafe last.pointee.iov_len -= 1
            writableStart = segments.readableCount
            writableCount = segments.writableCount
            let bytes = segments.writableBytes - 1
            return transfer(
                .read, sector: header.1, bytes: bytes, first: segments.readableCount,
                count: segments.writableCount - (unsafe last.pointee.iov_len == 0 ? 1 : 0), rules)
        case WIRE_VIRTIO_BLK_T_OUT:
            if rules.isReadOnly { return .refused(.ioError) }
            return writeTransfer(sector: header.1, segments, rules)
        case WIRE_VIRTIO_BLK_T_FLUSH:
            operation = .flush
            totalBytes = 0
            writtenOnSuccess = 1
            return .accepted
        case WIRE_VIRTIO_BLK_T_GET_ID:
            return identify(segments, rules)
        case WIRE_VIRTIO_BLK_T_DISCARD:
            if rules.isReadOnly { return .refused(.ioError) }
            return rules.allowsDiscard ? parseRanges(segments, zeroing: false, rules) : .refused(.unsupported)
        case WIRE_VIRTIO_BLK_T_WRITE_ZEROES:
            if rules.isReadOnly { return .refused(.ioError) }
            return rules.allowsWriteZeroes ? parseRanges(segments, zeroing: true, rules) : .refused(.unsupported)
        default:
            return .refused(.unsupported)
        }
    }

    /// A write's data is what the device reads behind the header, wherever a descriptor ends.
    private mutating func writeTransfer(
        sector: UInt64, _ segments: SegmentList, _ rules: borrowing RequestRules
    ) -> ParsedRequest {
        var first = 0
        var skip = 16
        while first < segments.readableCount {
            let length = unsafe segmentStorage[first].iov_len
            if skip < length { break }
            skip -= length
            first += 1
        }
        if skip > 0, first < segments.readableCount {
            unsafe segmentStorage[first].iov_base += skip
            unsafe segmentStorage[first].iov_len -= skip
        }
        return transfer(
            .write, sector: sector, bytes: segments.readableBytes - 16, first: first,
            count: segments.readableCount - first, rules)
    }

    private mutating func transfer(
        _ operation: BlockOperation, sector: UInt64, bytes: UInt64, first: Int, count: Int,
        _ rules: borrowing RequestRules
    ) -> ParsedRequest {
        guard bytes % 512 == 0, sector <= rules.sectors, bytes / 512 <= rules.sectors - sector else {
            return .refused(.ioError)
        }
        self.operation = operation
        writtenOnSuccess = operation == .read ? UInt32(truncatingIfNeeded: min(bytes + 1, UInt64(UInt32.max))) : 1
        totalBytes = bytes
        guard bytes > 0 else { return .finished }
        offset = sector * 512
        remaining = bytes
        unsafe vectors = segmentStorage + first
        vectorCount = count
        return .accepted
    }

    private mutating func identify(_ segments: SegmentList, _ rules: borrowing RequestRules) -> ParsedRequest {
        let count = Int(min(20, segments.writableBytes - 1))
        var index = segments.readableCount
        var position = 0
        for byte in 0..<count {
            while unsafe position == segmentStorage[index].iov_len {
                index += 1
                position = 0
            }
            unsafe wire_store8(segmentStorage[index].iov_base + position, rules.identity[byte])
            position += 1
        }
        operation = .identify
        totalBytes = 0
        writableStart = segments.readableCount
        // As far as the identity goes.
        writableCount = count > 0 ? index + 1 - segments.readableCount : 0
        writtenOnSuccess = UInt32(count + 1)
        return .finished
    }

    /// DISCARD and WRITE_ZEROES: 1 to 32 ranges, each copied, then checked (VIRTIO 1.2, 5.2.6.1 and 5.2.6.2).
    private mutating func parseRanges(
        _ segments: SegmentList, zeroing: Bool, _ rules: borrowing RequestRules
    ) -> ParsedRequest {
        let bytes = segments.readableBytes - 16
        let count = Int(bytes / 16)
        guard bytes % 16 == 0, count >= 1, count <= DiskDescription.maximumRanges else { return .refused(.ioError) }
        var mayUnmap = zeroing
        totalBytes = 0
        for index in 0..<count {
            var raw: (UInt64, UInt64) = (0, 0)
            unsafe withUnsafeMutableBytes(of: &raw) { unsafe segments.copyReadable(from: 16 + 16 * index, to: $0) }
            let sectors = UInt64(UInt32(truncatingIfNeeded: raw.1))
            let flags = UInt32(truncatingIfNeeded: raw.1 >> 32)
            let unmap = UInt32(WIRE_VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)
            guard flags & ~unmap == 0, zeroing || flags == 0 else { return .refused(.unsupported) }
            guard raw.0 <= rules.sectors, sectors <= rules.sectors - raw.0,
                sectors <= UInt64(zeroing ? DiskDescription.maximumZeroedSectors : DiskDescription.maximumRangeSectors)
            else { return .refused(.ioError) }
            // The space may only be freed when every range allows it.
            mayUnmap = mayUnmap && flags & unmap != 0
            unsafe ranges[index] = BlockRange(offset: raw.0 * 512, length: sectors * 512)
            totalBytes += sectors * 512
        }
        operation = zeroing ? (mayUnmap ? .writeZeroesUnmapping : .writeZeroes) : .discard
        rangeIndex = 0
        rangeCount = count
        writtenOnSuccess = 1
        return .accepted
    }
}
