public import Virtio

/// A virtqueue and the log of its requests in flight, as one thing: what a device takes requests from and returns them
/// to. Split and packed rings differ below it, not above.
///
/// A request lives in a *slot* from `take` until `giveBack`, a number below `size`. In a split ring it is the head of
/// the chain, which the guest names; in a packed one it is an entry of the log, which the ring chooses itself.
///
/// **The life of one request**: `take`, `record`, `walk`, …, `giveBack`, `publish`. Each kind of ring says at its top
/// what these store, in which order. The device writes nothing to the guest's buffers before `record` nor after
/// `giveBack`.
public protocol RequestRing: ~Copyable {
    /// Takes up a ring where it, its log and the front-end say that it stands.
    ///
    /// - Parameters:
    ///   - base: where the front-end says that the ring goes on (SET_VRING_BASE). A log that was used knows better:
    ///     front-ends disagree about what to say after a lost connection.
    ///   - region: where requests in flight are logged; nil: nowhere that anybody could find them.
    ///   - queue: whose log it is, in `region`.
    ///   - plan: what the log and the ring say about requests that a worker before has left.
    /// - Throws: when the log has no room for the ring or contradicts itself; nothing has been touched then.
    init(
        _ areas: RingAreas, base: UInt32, region: InflightRegion?, queue: Int, plan: inout RecoveryPlan
    ) throws(InflightLogError)

    /// Number of descriptors, and one more than the highest slot.
    var size: UInt16 { get }

    /// Where the ring stands, as GET_VRING_BASE tells it.
    var base: UInt32 { get }

    /// How many requests wait, at most: `take` may find fewer.
    ///
    /// - Returns: nil when the ring makes no sense.
    mutating func availableCount() -> UInt16?

    /// Fetches what the next `count` requests will need, so that their cache misses overlap.
    func prefetchAvailable(_ count: UInt16)

    /// The slot that the next request is taken into, where the ring chooses it, and has it in its log as soon as it is
    /// taken: what is recorded of the slot must say nothing of the request before by then. nil: the guest chooses.
    var slotToTake: UInt16? { get }

    /// Takes the next request out of the ring. To be called no more often than `availableCount` says.
    ///
    /// - Returns: its slot as the guest wrote it: any number, which may be that of a request in flight. nil when none
    ///   waits, or when the ring makes no sense, which the next `availableCount` will say.
    mutating func take() -> UInt16?

    /// Logs the request that was just taken: from here on, a successor carries it out.
    mutating func record(_ slot: UInt16)

    /// What the log has as the counter of a request in flight: it names the request for as long as that is in the log.
    func counter(of slot: UInt16) -> UInt64

    /// Returns what was just taken, the slot of which cannot be used: the guest named one that does not exist or that
    /// is in flight already. Everything given back before has been published; `publish` comes next.
    mutating func returnUnusable(_ slot: UInt16)

    /// Collects the buffers of a request that is recorded. Each descriptor is read once.
    ///
    /// - Parameter segments: empty on entry.
    func walk(
        from slot: UInt16, memory: inout GuestMemoryView, into segments: inout SegmentList
    ) -> ChainVerdict

    /// Returns a recorded request to the guest, which sees it at the next `publish`. The slot is free then.
    ///
    /// - Parameter written: bytes written to the request's device-writable part.
    mutating func giveBack(_ slot: UInt16, written: UInt32)

    /// Shows the guest what was given back, and strikes it off the log.
    ///
    /// - Returns: whether the guest asks for an interrupt.
    mutating func publish() -> Bool

    /// Asks the guest to kick when it makes the next request available.
    ///
    /// - Returns: true when one has been made available meanwhile, for which no kick may come.
    mutating func enableKicks() -> Bool

    /// Tells the guest that kicks are not needed for now.
    mutating func disableKicks()
}

extension RequestRing where Self: ~Copyable {
    @inlinable public var slotToTake: UInt16? { nil }
}

/// Where a ring lies, checked: all three areas are in mapped guest memory that stays mapped, and aligned.
@safe public struct RingAreas {
    /// Number of descriptors, 1 to 32768.
    public let size: UInt16
    /// Virtio feature bits as agreed with the driver.
    public let features: UInt64
    /// The descriptor table, or the descriptor ring.
    public let descriptors: UnsafeMutableRawPointer
    /// The available ring, or the driver event suppression.
    public let driver: UnsafeMutableRawPointer
    /// The used ring, or the device event suppression.
    public let device: UnsafeMutableRawPointer

    public init(
        size: UInt16, features: UInt64, descriptors: UnsafeMutableRawPointer, driver: UnsafeMutableRawPointer,
        device: UnsafeMutableRawPointer
    ) {
        self.size = size
        self.features = features
        unsafe self.descriptors = descriptors
        unsafe self.driver = driver
        unsafe self.device = device
    }
}
