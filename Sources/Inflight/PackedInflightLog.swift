public import CWire
internal import Platform
public import Virtio

/// The log of one packed queue's requests in flight, in memory that outlives this process where somebody keeps it.
///
/// The ring does not show for long what was taken from it: used descriptors are written over it. So each descriptor is
/// copied into an entry here, and a request is carried out from the copies, the first time as well as by a successor.
/// vhost-user: "Queue region, packed virtqueue".
///
/// Entries are linked by `next`: the free ones from `free_head` on, those of a chain from its first on. A request's
/// slot is the first entry of its chain.
///
/// **Order of stores** (one writer; each leaves a state that a successor can read):
///
/// 1. taken: copies of the descriptors into free entries;
/// 2. recorded: `num`, `last`, `counter`, `inflight = 1` of the first entry, then `free_head` and `old_free_head` in
///    one store, before which all of it is still free;
/// 3. about to be published: for each request of the batch `next[last]`, then `free_head`; then the `used` position in
///    one store, which leaves the `old` one behind;
/// 4. published (ring), then `inflight = 0` of the batch, then `free_head` and `old_free_head` in one store, then all
///    of the `used` positions in one store.
///
/// What decides between 3 and 4 is the mark of the first used descriptor in the ring, at the `old` position: not
/// marked, 3 is undone by going back to what is `old`; marked, 4 is completed. The specification stores these fields
/// one by one; a death between `old_used_idx` and its wrap counter would then make a successor look in the wrong place.
///
/// This process has its own copy of every link, and reads the shared ones only to recover.
@safe public struct PackedInflightLog: ~Copyable {
    @usableFromInline let base: UnsafeMutableRawPointer
    private let region: InflightRegion?
    private let privateMemory: Mapping?
    @usableFromInline let size: UInt16
    /// The order in which requests are taken; never 0, which others take for "fresh".
    @usableFromInline var counter: UInt64 = 1
    /// The first free entry; `size` or more when there is none.
    @usableFromInline var freeHead: UInt16 = 0
    /// What this process knows of each entry: others could write to the shared memory.
    @usableFromInline let states: UnsafeMutablePointer<EntryState>

    /// An entry, as this process knows it.
    @usableFromInline
    struct EntryState {
        /// The entry behind it in its chain or in the free list; `size` or more when there is none.
        @usableFromInline var next: UInt16 = 0
        /// Of the first entry of a chain: its last one.
        @usableFromInline var last: UInt16 = 0
        /// Of the first entry of a chain: how many it has.
        @usableFromInline var count: UInt16 = 0
        /// Of the first entry of a chain: the buffer id, which the guest chose as it likes.
        @usableFromInline var id: UInt16 = 0

        @usableFromInline init() {}
    }

    static func byteCount(queueSize: Int) -> Int { 32 + 32 * queueSize }
    /// DPDK's rounding.
    static func stride(queueSize: Int) -> Int { (byteCount(queueSize: queueSize) + 63) & ~63 }

    /// Takes up the log of a queue. It says nothing valid before `recover`.
    ///
    /// - Parameters:
    ///   - region: nil: in private memory, where no successor finds it.
    ///   - size: of the ring, 1 to 32768.
    /// - Throws: when the region has no such queue or no room for the ring's entries.
    public init(_ region: InflightRegion?, queue: Int, size: UInt16) throws(InflightLogError) {
        precondition(size >= 1 && size <= 32768)
        let bytes = Self.byteCount(queueSize: Int(size))
        var mapping: Mapping?
        if let region {
            guard queue < region.queueCount, Int(size) <= region.queueSize, region.stride >= bytes else {
                throw .noRoom(queue: queue, size: Int(size))
            }
            unsafe base = region.log(of: queue)
        } else {
            do throws(Errno) {
                let memory = try Mapping(anonymous: bytes)
                unsafe base = memory.base
                mapping = consume memory
            } catch {
                throw .noMemory(error)
            }
        }
        privateMemory = mapping
        self.region = region
        self.size = size
        unsafe states = .allocate(capacity: Int(size))
        unsafe states.initialize(repeating: EntryState(), count: Int(size))
    }

    deinit {
        unsafe states.deallocate()
    }

    /// Whether a successor can find it.
    public var isKept: Bool { region != nil }

    @inlinable
    @inline(__always)
    func entry(_ index: UInt16) -> UnsafeMutableRawPointer {
        precondition(index < size)
        return unsafe base + (32 + 32 * Int(index))
    }

    @inlinable
    @inline(__always)
    func state(_ index: UInt16) -> UnsafeMutablePointer<EntryState> {
        precondition(index < size)
        return unsafe states + Int(index)
    }

    /// The counter of a request in flight.
    func counter(of slot: UInt16) -> UInt64 { unsafe wire_load64(entry(slot) + 8) }

    // MARK: Taking

    /// Copies a descriptor into a free entry.
    ///
    /// - Returns: the free entry behind it.
    @inlinable
    @inline(__always)
    mutating func copy(_ descriptor: Descriptor, to index: UInt16) -> UInt16 {
        let entry = unsafe entry(index)
        let rest =
            UInt64(descriptor.next) | UInt64(descriptor.flags) << 16 | UInt64(descriptor.length) << 32
        unsafe wire_store64(entry + 16, rest)
        unsafe wire_store64(entry + 24, descriptor.address)
        return unsafe state(index).pointee.next
    }

    /// Notes which entries a chain has that was copied: from the first free one on.
    @inlinable
    @inline(__always)
    mutating func close(last: UInt16, count: UInt16, id: UInt16) {
        let first = unsafe state(freeHead)
        unsafe first.pointee.last = last
        unsafe first.pointee.count = count
        unsafe first.pointee.id = id
    }

    /// The chain that was closed last is in flight.
    @inlinable
    @inline(__always)
    mutating func record(_ slot: UInt16) {
        let known = unsafe state(slot).pointee
        let entry = unsafe entry(slot)
        unsafe wire_store16(entry + 4, known.last)
        unsafe wire_store16(entry + 6, known.count)
        unsafe wire_store64(entry + 8, counter)
        counter &+= 1
        unsafe wire_store8(entry, 1)
        freeHead = unsafe state(known.last).pointee.next
        storeFreeHeads()
    }

    @inlinable
    @inline(__always)
    mutating func storeFreeHeads() {
        unsafe wire_store32(base + 12, UInt32(freeHead) | UInt32(freeHead) << 16)
    }

    /// A descriptor as it was copied. Its flags and its address are to be checked as if the guest had just written
    /// them.
    @inlinable
    @inline(__always)
    func descriptor(_ index: UInt16) -> Descriptor {
        let entry = unsafe entry(index)
        let rest = unsafe wire_load64(entry + 16)
        return unsafe Descriptor(
            address: wire_load64(entry + 24), length: UInt32(truncatingIfNeeded: rest >> 32),
            flags: UInt16(truncatingIfNeeded: rest >> 16), next: UInt16(truncatingIfNeeded: rest))
    }

    // MARK: Returning

    /// A request is about to be published: its entries are put in front of the free ones.
    @inlinable
    @inline(__always)
    mutating func release(_ slot: UInt16) {
        let last = unsafe state(slot).pointee.last
        unsafe state(last).pointee.next = freeHead
        unsafe wire_store16(entry(last) + 2, freeHead)
        freeHead = slot
        unsafe wire_store16(base + 12, slot)
    }

    /// All requests of a batch have been released. From here on the ring decides whether they are in flight.
    @inlinable
    @inline(__always)
    mutating func willPublish(from old: RingPosition, to new: RingPosition) {
        unsafe wire_store64(base + 16, Self.positions(new, old: old))
    }

    /// A request of the batch has been published.
    @inlinable
    @inline(__always)
    mutating func strikeOff(_ slot: UInt16) {
        unsafe wire_store8(entry(slot), 0)
    }

    /// All requests of the batch have been struck off.
    @inlinable
    @inline(__always)
    mutating func didPublish(to new: RingPosition) {
        storeFreeHeads()
        unsafe wire_store64(base + 16, Self.positions(new, old: new))
    }

    /// `used_idx`, `old_used_idx`, `used_wrap_counter`, `old_used_wrap_counter`, in one word.
    @inlinable
    @inline(__always)
    static func positions(_ new: RingPosition, old: RingPosition) -> UInt64 {
        let indices = UInt64(new.index) | UInt64(old.index) << 16
        return indices | (new.wrap ? 1 << 32 : 0) | (old.wrap ? 1 << 40 : 0)
    }
}
