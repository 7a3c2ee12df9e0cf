internal import CWire
internal import Glibc
public import Inflight
internal import Platform
public import Virtio

/// What /dev/fuse is to a queue: requests of this host's kernel, in memory that outlives the worker as a guest's does.
///
/// A read from /dev/fuse takes a request from the kernel for good, so what it was read into is its only place. That is
/// a slot of memory in custody, and the slot is its own log: it is in flight from the moment that the kernel has
/// written the length into its header until that is made 0 again. A thread that is killed in the read ends it first.
///
/// | # | Last thing done | The successor finds | and |
/// |---|---|---|---|
/// | 1 | a free slot chosen (`slotToTake`), its record emptied | length 0 | takes it for free |
/// | 2 | read | a length, no answer | carries the request out |
/// | 3 | `giveBack`: the answer is complete | a length, and how long the answer is | writes it, frees the slot |
/// | 4 | the answer written | the same | writes it again: the kernel knows no such request (ENOENT) |
/// | 5 | length made 0 | length 0, an answer | takes it for free; forgets the answer, or it was the next request's |
///
/// The areas are one: a page with the length of each slot's answer, plus 1; then the slots.
@safe public struct FuseDeviceRing: RequestRing, ~Copyable {
    public let size: UInt16
    private let memory: UnsafeMutableRawPointer
    /// /dev/fuse; non-blocking. Its owner keeps it open.
    private let device: Int32
    /// The last one freed is used next: few slots are ever touched.
    private var free: [UInt16] = []
    /// Slots that this process has made present for the kernel's reads.
    private var isPresent: [Bool]
    /// The file system is mounted no more.
    private var isGone = false

    /// Requests of one loop under way at once, with those that wait for a lock. The kernel keeps the others.
    public static var slotCount: Int { 64 }

    /// Bytes of memory that a queue needs, zero at first.
    public static var byteCount: Int { 4096 + slotCount * stride }

    private static var requestBytes: Int { (FuseRequest.requestBytes + 4095) & ~4095 }
    private static var stride: Int { requestBytes + (FuseRequest.answerBytes + 4095) & ~4095 }

    /// - Parameters:
    ///   - areas: `descriptors` is the memory, of `byteCount` bytes; `size` is `slotCount`.
    ///   - base: the number of /dev/fuse's descriptor, mounted and non-blocking. There is no position in a stream of
    ///     requests.
    ///   - region: not used: the slots are the log.
    public init(
        _ areas: RingAreas, base: UInt32, region: InflightRegion?, queue: Int, plan: inout RecoveryPlan
    ) throws(InflightLogError) {
        guard Int(areas.size) == Self.slotCount else { throw .otherRing(Self.slotCount, size: Int(areas.size)) }
        size = areas.size
        unsafe memory = areas.descriptors
        device = Int32(bitPattern: base)
        free.reserveCapacity(Int(size))
        isPresent = Array(repeating: false, count: Int(size))
        for slot in (0..<size).reversed() {
            switch standing(of: slot) {
            case .free: release(slot)
            case .taken: plan.heads.append(slot)
            case .answered(let count):
                write(slot, count)
                release(slot)
                plan.struckOff += 1
            }
        }
        // As the kernel has numbered them.
        plan.heads.sort { counter(of: $0) < counter(of: $1) }
    }

    // MARK: Slots

    private enum Standing {
        case free
        case taken
        /// The answer has so many bytes; 0: it needs none.
        case answered(UInt32)
    }

    private func standing(of slot: UInt16) -> Standing {
        if length(of: slot) == 0 { return .free }
        let mark = unsafe wire_load64(answerMark(slot))
        return mark == 0 ? .taken : .answered(UInt32(truncatingIfNeeded: mark &- 1))
    }

    private func request(_ slot: UInt16) -> UnsafeMutableRawPointer {
        unsafe memory + 4096 + Int(slot) * Self.stride
    }

    private func answer(_ slot: UInt16) -> UnsafeMutableRawPointer { unsafe request(slot) + Self.requestBytes }
    private func answerMark(_ slot: UInt16) -> UnsafeMutableRawPointer { unsafe memory + Int(slot) * 8 }

    /// As the kernel has written it: `len` of fuse_in_header; 0: there is none.
    private func length(of slot: UInt16) -> UInt32 { unsafe wire_load32(request(slot)) }

    /// The order matters: a slot without a length is free, whatever its answer.
    private mutating func release(_ slot: UInt16) {
        unsafe wire_store32(request(slot), 0)
        unsafe wire_store64(answerMark(slot), 0)
        free.append(slot)
    }

    private func write(_ slot: UInt16, _ count: UInt32) {
        guard count > 0 else { return }
        // The kernel looks for the request when it has the first page: one that it cannot have then, because this
        // process dies, would end the request with an error.
        if count > 4096 { unsafe Platform.makePresent(answer(slot), min(Int(count), FuseRequest.answerBytes)) }
        if unsafe Glibc.write(device, answer(slot), min(Int(count), FuseRequest.answerBytes)) >= 0 { return }
        // ENOENT: whoever asked has been interrupted, and waits no more. An answer that the kernel does not understand
        // must not leave anybody waiting.
        guard Errno.current == .invalidArgument else { return }
        var header = wire_fuse_out_header()
        header.len = UInt32(MemoryLayout<wire_fuse_out_header>.size)
        header.error = -EIO
        header.unique = counter(of: slot)
        _ = unsafe Glibc.write(device, &header, Int(header.len))
    }

    // MARK: RequestRing

    public var base: UInt32 { UInt32(bitPattern: device) }

    /// Each may be one: only a read can tell.
    public mutating func availableCount() -> UInt16? { isGone ? nil : UInt16(free.count) }

    public func prefetchAvailable(_ count: UInt16) {}

    public var slotToTake: UInt16? { free.last }

    public mutating func take() -> UInt16? {
        guard let slot = free.last else { return nil }
        if !isPresent[Int(slot)] { makePresent(slot) }
        guard unsafe read(device, request(slot), FuseRequest.requestBytes) > 0 else {
            if Errno.current == Errno(rawValue: ENODEV) { isGone = true }
            // Nothing of a request that could not be read is left.
            unsafe wire_store32(request(slot), 0)
            return nil
        }
        free.removeLast()
        return slot
    }

    /// The kernel faults no page in for a thread that is being killed: it would end a request that it has copied in
    /// part with EIO, and leave the part here.
    private mutating func makePresent(_ slot: UInt16) {
        unsafe Platform.makePresent(request(slot), Self.requestBytes)
        // They stay present if that is allowed.
        _ = unsafe mlock(request(slot), Self.requestBytes)
        isPresent[Int(slot)] = true
    }

    /// The kernel has: see above.
    public mutating func record(_ slot: UInt16) {}

    /// As the kernel names the request (`unique`).
    public func counter(of slot: UInt16) -> UInt64 { unsafe wire_load64(request(slot) + 8) }

    /// Never: slots are chosen here.
    public mutating func returnUnusable(_ slot: UInt16) {}

    public func walk(
        from slot: UInt16, memory: inout GuestMemoryView, into segments: inout SegmentList
    ) -> ChainVerdict {
        let count = min(Int(length(of: slot)), FuseRequest.requestBytes)
        unsafe segments.storage[0] = unsafe iovec(iov_base: request(slot), iov_len: count)
        unsafe segments.storage[1] = unsafe iovec(iov_base: answer(slot), iov_len: FuseRequest.answerBytes)
        (segments.readableCount, segments.readableBytes) = (1, UInt64(count))
        (segments.writableCount, segments.writableBytes) = (1, UInt64(FuseRequest.answerBytes))
        return .sound
    }

    /// Answers at once: somebody waits, and nothing is gained by a batch.
    public mutating func giveBack(_ slot: UInt16, written: UInt32) {
        unsafe wire_store64(answerMark(slot), UInt64(written) + 1)
        write(slot, written)
        release(slot)
    }

    public mutating func publish() -> Bool { false }

    /// The kernel tells of each request that comes from now on; what has come before is looked for.
    public mutating func enableKicks() -> Bool {
        if free.isEmpty { return false }
        var target = pollfd(fd: device, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&target, 1, 0) > 0
    }

    public mutating func disableKicks() {}
}
