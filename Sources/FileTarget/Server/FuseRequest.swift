internal import CWire
public import Custody
public import Glibc
public import Platform
internal import Uring
public import Virtio

/// The place of one request between its arrival and its answer.
@safe public struct FuseRequest {
    /// Names its operation in an engine: see `RequestToken`.
    public var token: UInt64 = 0
    /// Between arrival and answer.
    public var isActive = false
    /// Its operation was started by a worker before this one.
    public var isAdopted = false
    /// Answer it with an error.
    public var isRefused = false
    /// The slot behind this one in the list of those that wait, or -1.
    public var nextWaiting: Int32 = -1

    /// As the driver named it.
    public internal(set) var unique: UInt64 = 0
    public internal(set) var opcode: UInt32 = 0
    public internal(set) var node: UInt64 = 0
    /// The driver's program: its user, group and process.
    public internal(set) var user: UInt32 = 0
    public internal(set) var group: UInt32 = 0
    public internal(set) var process: UInt32 = 0
    /// Its answer is an error.
    public internal(set) var hasFailed = false

    /// Where the data of READ goes, or that of WRITE comes from: what is left of it.
    public internal(set) var vectors: UnsafeMutablePointer<iovec>
    public internal(set) var vectorCount = 0
    /// Bytes left, and bytes done.
    public internal(set) var remaining = 0
    public internal(set) var transferred = 0

    /// Of the file system: what it needs to go on.
    var stage: UInt8 = 0
    /// Where the transfer goes on in the file.
    var offset: UInt64 = 0
    /// The file in use, or -1.
    var file: Int32 = -1
    /// Slot of that file in the table; 0: none.
    var fileSlot: UInt32 = 0
    /// What a lock that waits needs.
    var lock = WaitingLock()
    /// Its data takes set-ID bits away.
    var killsIDs = false
    /// Times that the operation was tried again.
    var attempts: UInt8 = 0
    /// The engine does not take what this would ask of it.
    var avoidsEngine = false
    /// The operation has completed for a worker before this one: nothing is to be prepared for it, and a descriptor
    /// that it has made is gone.
    var isForeign = false
    /// As whoever creates a file opens it.
    var openFlags: UInt32 = 0
    /// Directories whose descriptors the operation uses.
    var held: (HeldNode?, HeldNode?) = (nil, nil)
    /// The operation that found no room.
    var stalledOperation: IOOperation?

    /// The answer's buffers.
    private let segments: UnsafeMutablePointer<iovec>
    private var firstWritable = 0
    private var writableCount = 0
    private var writableBytes = 0
    /// Room for vectors.
    private let vectorStorage: UnsafeMutablePointer<iovec>
    /// Room for two names.
    let names: UnsafeMutablePointer<CChar>

    static let nameBytes = 512

    /// Bytes of an answer, at most: what /dev/fuse sets aside for it.
    public static var answerBytes: Int { MemoryLayout<wire_fuse_out_header>.size + ShareDescription.maximumTransfer }
    /// Bytes of a request, at most: what /dev/fuse reads into. A little more than data, for the structures.
    public static var requestBytes: Int { ShareDescription.maximumTransfer + 4096 }

    init(
        segments: UnsafeMutablePointer<iovec>, vectors: UnsafeMutablePointer<iovec>, names: UnsafeMutablePointer<CChar>
    ) {
        unsafe self.segments = segments
        unsafe vectorStorage = vectors
        unsafe self.vectors = vectors
        unsafe self.names = names
    }

    /// Room for the buffers of one request, to be filled from the start: `begin` takes it.
    public var emptySegments: SegmentList {
        unsafe SegmentList(storage: segments, capacity: FuseSlots.segmentCapacity)
    }

    /// Takes up the buffers of a request. They are in `segments`.
    mutating func take(_ list: SegmentList) {
        firstWritable = list.readableCount
        writableCount = list.writableCount
        writableBytes = Int(clamping: list.writableBytes)
        vectorCount = 0
        remaining = 0
        transferred = 0
        hasFailed = false
        stage = 0
        stalledOperation = nil
    }

    /// How far it had come before the operation under way, for its record.
    public var progress: RequestProgress { RequestProgress(done: UInt64(transferred), state: UInt64(stage)) }

    /// The operation under way uses these directories until it has completed.
    ///
    /// - Parameter stage: that it is in; if it makes a name, the one of `copyName`, in the first directory.
    mutating func hold(_ first: HeldNode, _ second: HeldNode?, _ stage: Stage) {
        held = (first, second)
        self.stage = stage.rawValue
    }

    /// Names that lie still until the operation has been submitted.
    func copyNames(_ first: FuseName, _ second: FuseName) -> (UnsafePointer<CChar>, UnsafePointer<CChar>) {
        unsafe names.update(from: first.bytes, count: first.count + 1)
        unsafe (names + 256).update(from: second.bytes, count: second.count + 1)
        return unsafe (UnsafePointer(names), UnsafePointer(names + 256))
    }

    /// The same of one name, and an empty one.
    func copyName(_ name: FuseName) -> (UnsafePointer<CChar>, UnsafePointer<CChar>) {
        unsafe names.update(from: name.bytes, count: name.count + 1)
        unsafe names[256] = 0
        return unsafe (UnsafePointer(names), UnsafePointer(names + 256))
    }

    /// Room for a name besides that of `copyName`.
    var privateName: UnsafeMutablePointer<CChar> { unsafe names + 256 }

    // MARK: Data

    /// Bytes that the answer's header is long.
    static var headerBytes: Int { MemoryLayout<wire_fuse_out_header>.size }

    /// Room for an answer's data.
    var answerRoom: Int { max(writableBytes - Self.headerBytes, 0) }

    /// The data goes behind the answer's header.
    ///
    /// - Parameter count: as asked for; less when there is no room.
    mutating func aimAtAnswer(count: Int) {
        aim(firstWritable, writableCount, skipping: Self.headerBytes, count: min(count, answerRoom))
    }

    /// The data comes behind the request's structures.
    mutating func aimAtRequest(skipping: Int, count: Int) { aim(0, firstWritable, skipping: skipping, count: count) }

    private mutating func aim(_ first: Int, _ segmentCount: Int, skipping: Int, count: Int) {
        var (skip, left, made) = (skipping, count, 0)
        for index in first..<first + segmentCount where left > 0 {
            let segment = unsafe segments[index]
            let length = unsafe segment.iov_len
            if skip >= length {
                skip -= length
                continue
            }
            let part = min(length - skip, left)
            unsafe vectorStorage[made] = unsafe iovec(iov_base: segment.iov_base + skip, iov_len: part)
            made += 1
            left -= part
            skip = 0
        }
        unsafe vectors = vectorStorage
        vectorCount = made
        remaining = count - left
        transferred = 0
    }

    /// Drops bytes from the front of what is left to transfer.
    mutating func advance(_ count: Int) {
        var count = min(count, remaining)
        remaining -= count
        transferred += count
        offset &+= UInt64(count)
        while count > 0 {
            let length = unsafe vectors.pointee.iov_len
            if count < length {
                unsafe vectors.pointee.iov_base += count
                unsafe vectors.pointee.iov_len = length - count
                return
            }
            count -= length
            unsafe vectors += 1
            vectorCount -= 1
        }
    }

    // MARK: The answer

    /// Writes bytes of the answer. There is room: the caller has checked.
    func write(_ source: UnsafeRawPointer, count: Int, at position: Int) {
        var (skip, done, index) = (position, 0, firstWritable)
        while done < count, index < firstWritable + writableCount {
            let segment = unsafe segments[index]
            index += 1
            let length = unsafe segment.iov_len
            if skip >= length {
                skip -= length
                continue
            }
            let part = min(length - skip, count - done)
            unsafe (segment.iov_base + skip).copyMemory(from: source + done, byteCount: part)
            done += part
            skip = 0
        }
    }

    /// Writes the answer's header.
    ///
    /// - Parameter count: bytes of the whole answer.
    /// - Returns: that count; 0 when there is no room for a header.
    mutating func writeHeader(error: Errno?, count: Int) -> UInt32 {
        guard writableBytes >= Self.headerBytes else { return 0 }
        hasFailed = error != nil
        var header = wire_fuse_out_header()
        header.len = UInt32(clamping: count)
        header.error = error.map { -$0.rawValue } ?? 0
        header.unique = unique
        unsafe withUnsafeBytes(of: &header) { unsafe write($0.baseAddress!, count: Self.headerBytes, at: 0) }
        return UInt32(clamping: count)
    }
}

/// Requests and the memory that they need, all of it set aside at the start; pages that no request needs cost nothing.
@safe public struct FuseSlots: ~Copyable, @unchecked Sendable {
    @usableFromInline let slots: UnsafeMutablePointer<FuseRequest>
    public let count: Int
    private let mapping: Mapping

    /// Buffers of one request, at most, as far as the kernel takes them (UIO_MAXIOV).
    @usableFromInline static var segmentCapacity: Int { maximumChainLength }
    /// A little more than needed, so that neighbours fall into different cache sets.
    private static var stride: Int {
        unsafe 2 * segmentCapacity * MemoryLayout<iovec>.stride + ((FuseRequest.nameBytes + 63) & ~63) + 64
    }

    /// Takes slots that are ready, of which there must be so many; or makes them.
    init(_ ready: consuming FuseSlots?, count: Int) throws(Errno) {
        switch consume ready {
        case .some(let ready):
            precondition(ready.count == count, "a slot for each descriptor")
            self = ready
        case .none: try self.init(count: count)
        }
    }

    /// - Throws: when there is no memory.
    public init(count: Int) throws(Errno) {
        mapping = try Mapping(anonymous: count * Self.stride)
        self.count = count
        unsafe slots = .allocate(capacity: count)
        let vectorBytes = unsafe Self.segmentCapacity * MemoryLayout<iovec>.stride
        for index in 0..<count {
            let base = unsafe mapping.base + index * Self.stride
            unsafe (slots + index).initialize(
                to: FuseRequest(
                    segments: base.bindMemory(to: iovec.self, capacity: Self.segmentCapacity),
                    vectors: (base + vectorBytes).bindMemory(to: iovec.self, capacity: Self.segmentCapacity),
                    names: (base + 2 * vectorBytes).bindMemory(to: CChar.self, capacity: FuseRequest.nameBytes)))
        }
    }

    /// Works on one request.
    @inlinable
    public func with<Result>(_ index: Int, _ body: (inout FuseRequest) -> Result) -> Result {
        precondition(index >= 0 && index < count)
        return body(&(unsafe slots[index]))
    }

    deinit {
        unsafe slots.deinitialize(count: count)
        unsafe slots.deallocate()
    }
}
