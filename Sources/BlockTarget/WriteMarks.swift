internal import Glibc
internal import Platform
public import Virtio

/// Marks in the dirty log what a queue has written to guest memory. Off, it costs a look at `isOn` for each request.
///
/// **Order**: a request's buffers and status byte are written, then marked, then its used element is written; used
/// elements are written, then marked, then published; the publication is marked last. So what the guest can know of is
/// marked, but for the last publication of a worker that died: its successor marks the whole ring when it takes it up.
public struct WriteMarks: Sendable {
    private let log: DirtyLog?
    /// What the device writes of the ring: guest address and length.
    private let ring: [GuestRange]
    /// Tells of new marks, or -1.
    private let event: Int32
    /// Whether anything is marked.
    @usableFromInline let isOn: Bool
    /// Used elements were written that are not marked yet.
    @usableFromInline var hasUsedElements = false
    private var hasMarked = false

    /// A part of guest memory.
    public struct GuestRange: Sendable, Hashable {
        /// Of the first byte; a number from a peer, which may lie anywhere.
        public var address: UInt64
        /// Bytes.
        public var count: UInt64

        public init(address: UInt64, count: UInt64) {
            self.address = address
            self.count = count
        }
    }

    /// - Parameters:
    ///   - ring: what the device writes of the ring; empty: not to be marked.
    ///   - event: rung when there are new marks, or -1; its owner keeps it open while it is used here.
    public init(_ log: DirtyLog, ring: [GuestRange], event: Int32) {
        self.log = log
        self.ring = ring
        self.event = event
        isOn = true
    }

    private init() {
        log = nil
        ring = []
        event = -1
        isOn = false
    }

    /// Nothing is marked.
    public static let off = WriteMarks()

    /// Marks what a request has written: of one that failed, what it may have written.
    @usableFromInline
    mutating func mark(_ slot: borrowing RequestSlot, in memory: inout GuestMemoryView) {
        for index in 0..<slot.writableCount {
            let segment = unsafe slot.writableSegment(index)
            unsafe mark(segment.iov_base, count: segment.iov_len, in: &memory)
        }
        if let status = unsafe slot.status { unsafe mark(status, count: 1, in: &memory) }
        hasUsedElements = true
    }

    private mutating func mark(_ host: UnsafeMutableRawPointer?, count: Int, in memory: inout GuestMemoryView) {
        guard let host = unsafe host, count > 0, let address = unsafe memory.guestAddress(of: host) else { return }
        log?.mark(address, count: UInt64(count))
        hasMarked = true
    }

    /// Marks what the device has written of the ring.
    @usableFromInline
    mutating func markRing() {
        for range in ring { log?.mark(range.address, count: range.count) }
        hasMarked = true
    }

    /// The used elements that were marked have been published: marks that, and tells of all that was marked.
    @usableFromInline
    mutating func published() {
        hasUsedElements = false
        markRing()
        if hasMarked, event >= 0 { signalEvent(event) }
        hasMarked = false
    }
}
