public import Platform
internal import Synchronization

/// What driver and back-end share about one virtqueue: memory, where the ring lies in it, and three eventfds.
///
/// It outlives any connection: a back-end that comes back is given the same endpoint and finds the ring as it was. The
/// `Frontend` announces it; one `DriverQueue`, owned by one thread, drives it.
public final class QueueEndpoint: Sendable {
    public let memory: GuestMemory
    /// Where the ring lies. A packed one has its descriptor ring in place of the descriptor table and its two event
    /// suppression areas in place of available and used ring.
    public let ring: SplitRing
    /// The ring is a packed one (VIRTIO_F_RING_PACKED).
    public let isPacked: Bool
    private let packedBaseValue = Atomic<UInt32>(0x8000_8000)
    /// The driver rings it: there are new available entries.
    public let kick: EventFD
    /// The back-end rings it: there are new used entries.
    public let call: EventFD
    /// The back-end rings it: the queue is broken.
    public let error: EventFD

    /// - Throws: the system's error, when this process may open no more descriptors.
    public init(memory: GuestMemory, ring: SplitRing, isPacked: Bool = false) throws(SystemError) {
        precondition(!isPacked || ring.availableRing % 4 == 0, "an event suppression area is aligned to 4 bytes")
        self.memory = memory
        self.isPacked = isPacked
        self.ring = ring
        do throws(Errno) {
            kick = try EventFD()
            call = try EventFD()
            error = try EventFD()
        } catch {
            throw SystemError(cannot: "make", "an eventfd", error)
        }
    }

    /// Where a packed ring stands when nobody drives it, as SET_VRING_BASE says it: the ring itself does not show it.
    var packedBase: UInt32 {
        get { packedBaseValue.load(ordering: .relaxed) }
        set { packedBaseValue.store(newValue, ordering: .relaxed) }
    }

    /// The index of the used ring as it is now (`used.idx`): how far the back-end has come.
    var usedIndex: UInt16 {
        let address = unsafe memory.pointer(to: ring.usedRing, count: SplitRing.usedRingCount(ring.size))
        return unsafe address.assumingMemoryBound(to: Atomic<UInt16>.self)[1].load(ordering: .acquiring)
    }
}
