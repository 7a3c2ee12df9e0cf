public import Platform
internal import Synchronization

/// What driver and back-end share about one virtqueue: memory, where the ring lies in it, and three eventfds.
///
/// It outlives any connection: a back-end that comes back is given the same endpoint and finds the ring as it was. The
/// `Frontend` announces it; one `DriverQueue`, owned by one thread, drives it.
public final class QueueEndpoint: Sendable {
    public let memory: GuestMemory
    public let ring: SplitRing
    /// The driver rings it: there are new available entries.
    public let kick: EventFD
    /// The back-end rings it: there are new used entries.
    public let call: EventFD
    /// The back-end rings it: the queue is broken.
    public let error: EventFD

    /// - Throws: the system's error, when this process may open no more descriptors.
    public init(memory: GuestMemory, ring: SplitRing) throws(SystemError) {
        self.memory = memory
        self.ring = ring
        do throws(Errno) {
            kick = try EventFD()
            call = try EventFD()
            error = try EventFD()
        } catch {
            throw SystemError(cannot: "make", "an eventfd", error)
        }
    }

    /// The index of the used ring as it is now (`used.idx`): how far the back-end has come.
    var usedIndex: UInt16 {
        let address = unsafe memory.pointer(to: ring.usedRing, count: SplitRing.usedRingCount(ring.size))
        return unsafe address.assumingMemoryBound(to: Atomic<UInt16>.self)[1].load(ordering: .acquiring)
    }
}
