public import Platform
public import Virtio

/// What a vhost-user session asks of the device behind it.
///
/// The session checks everything that can be checked without the device (features, indices, sizes, order of messages)
/// and calls from one thread, one call at a time. A call that throws refuses that message: the session answers it with
/// an error where the peer asked for an answer, and closes the connection where it did not.
public protocol VhostUserDevice: AnyObject {
    /// Virtio feature bits the device offers, without the bits that belong to vhost (26 and 30).
    var offeredFeatures: UInt64 { get }
    /// How many virtqueues there are, at least 1.
    var queueCount: Int { get }
    /// The largest ring size that is accepted.
    var maximumQueueSize: Int { get }
    /// How many memory regions are accepted at once (GET_MAX_MEM_SLOTS).
    var maximumMemoryRegions: Int { get }
    /// Whether queues may be stopped with requests left in the inflight log.
    var parksRequests: Bool { get }
    /// Whether the front-end is to ask for the configuration space (`VHOST_USER_PROTOCOL_F_CONFIG`). QEMU has one of
    /// its own for a share, and warns where it is offered another.
    var offersConfiguration: Bool { get }
    /// Whether the device marks its writes to guest memory for a migration (`VHOST_USER_PROTOCOL_F_LOG_SHMFD`). QEMU
    /// refuses to migrate a guest one of whose devices does not.
    var offersDirtyLog: Bool { get }
    /// The virtio configuration space as it is now.
    var configuration: [UInt8] { get }

    /// The driver writes to the configuration space (SET_CONFIG).
    func writeConfiguration(_ bytes: [UInt8], at offset: Int) throws(DeviceRefusal)

    /// Replaces all of guest memory (SET_MEM_TABLE); `fds` has one descriptor for each region, in order. Queues that
    /// run go on in the new memory.
    func replaceMemory(_ regions: [MemoryRegion], fds: consuming ReceivedFDs) throws(DeviceRefusal)
    /// Adds one region (ADD_MEM_REG); it overlaps no other.
    func addMemory(_ region: MemoryRegion, fd: consuming OwnedFD) throws(DeviceRefusal)
    /// Takes away the region with these addresses and this size (REM_MEM_REG); its file offset is not part of its
    /// identity.
    func removeMemory(_ region: MemoryRegion) throws(DeviceRefusal)

    /// Makes a file for the log of requests in flight (GET_INFLIGHT_FD). The front-end keeps it, gives it back with
    /// `setInflight`, and gives it to a successor of this device. Nothing else changes.
    ///
    /// - Parameter packed: packed rings were agreed on before.
    func makeInflight(queueCount: Int, queueSize: Int, packed: Bool) throws(DeviceRefusal) -> InflightFile
    /// Takes the log of requests in flight to use from the next start of a queue on (SET_INFLIGHT_FD). What it holds of
    /// requests that were taken and not returned is carried out when the queue starts.
    func setInflight(_ description: InflightDescription, fd: consuming OwnedFD) throws(DeviceRefusal)

    /// The eventfd that the driver kicks, or nil: the queue is polled. May change while the queue runs.
    func setKick(_ fd: consuming OwnedFD?, queue: Int) throws(DeviceRefusal)
    /// The eventfd that interrupts the driver, or nil: none. May change while the queue runs.
    func setCall(_ fd: consuming OwnedFD?, queue: Int) throws(DeviceRefusal)
    /// The eventfd that reports a broken queue, or nil: none. May change while the queue runs.
    func setError(_ fd: consuming OwnedFD?, queue: Int) throws(DeviceRefusal)

    /// Takes the bitmap in which every write to guest memory is marked from now on, one bit for each page of 4096 bytes
    /// (SET_LOG_BASE); the one before is not written to any more when this returns. Queues run on.
    func setDirtyLog(_ description: LogDescription, fd: consuming OwnedFD) throws(DeviceRefusal)
    /// The eventfd that tells of new marks (SET_LOG_FD).
    func setLogEvent(_ fd: consuming OwnedFD) throws(DeviceRefusal)
    /// Which of a queue's writes are marked from now on, for a queue that runs and for its next start. Requests in
    /// flight are marked when they complete.
    func setLogging(_ logging: QueueLogging, queue: Int) throws(DeviceRefusal)

    /// Takes the socket for the device's own requests (SET_BACKEND_REQ_FD), in place of an earlier one.
    ///
    /// - Parameter acknowledged: the front-end acknowledges such requests when asked (REPLY_ACK).
    func setBackendChannel(_ fd: consuming OwnedFD, acknowledged: Bool) throws(DeviceRefusal)

    /// Starts serving a queue that is stopped.
    func startQueue(_ queue: Int, _ setup: QueueSetup) throws(DeviceRefusal)
    /// Stops a queue: requests that were taken from the ring are finished first. The queue may be stopped already.
    ///
    /// - Returns: where the queue would go on, in the form of `QueueSetup.base`.
    func stopQueue(_ queue: Int) throws(DeviceRefusal) -> UInt32
    /// As `stopQueue`, but requests that the storage has not begun with may stay in the inflight log, for whoever takes
    /// the queue up next (GET_VRING_BASE_SKIP_DRAIN).
    func parkQueue(_ queue: Int) throws(DeviceRefusal) -> UInt32

    /// Back to the state before the first message: all queues stopped, memory unmapped, descriptors closed. Called for
    /// RESET_DEVICE (`keepingMemory`) and when a connection ends.
    func reset(keepingMemory: Bool)
}

extension VhostUserDevice {
    public var offersConfiguration: Bool { true }
    public var offersDirtyLog: Bool { true }
}

/// A new log of requests in flight.
public final class InflightFile: Sendable {
    /// Length in bytes.
    public let size: UInt64
    public let fd: OwnedFD

    public init(size: UInt64, fd: consuming OwnedFD) {
        self.size = size
        self.fd = fd
    }
}

/// Where a queue lies and where it goes on.
public struct QueueSetup: Hashable, Sendable {
    /// Virtio feature bits that driver and device agreed on, without those that belong to vhost.
    public var features: UInt64
    /// Number of descriptors, 1 to the device's maximum; for a split ring usually, not always, a power of two.
    public var size: Int
    /// The descriptor table, as an address of the front-end's mapping.
    public var descriptorTable: UInt64
    /// The available ring (driver area), as an address of the front-end's mapping.
    public var availableRing: UInt64
    /// The used ring (device area), as an address of the front-end's mapping.
    public var usedRing: UInt64
    /// Where it goes on, as SET_VRING_BASE says it and GET_VRING_BASE is answered: the index of the next available ring
    /// entry to take. Of a packed ring: the next descriptor to take in bits 0 to 14 and the wrap counter there in bit
    /// 15, the next one to return and its wrap counter in bits 16 to 31.
    public var base: UInt32

    public init(
        features: UInt64, size: Int, descriptorTable: UInt64, availableRing: UInt64, usedRing: UInt64, base: UInt32
    ) {
        self.features = features
        self.size = size
        self.descriptorTable = descriptorTable
        self.availableRing = availableRing
        self.usedRing = usedRing
        self.base = base
    }
}

/// Which of a queue's writes to guest memory are marked in the dirty log.
public struct QueueLogging: Hashable, Sendable {
    /// Whether any are: the buffers of requests (`VHOST_F_LOG_ALL`).
    public var isOn: Bool
    /// The guest address under which writes to the used ring are marked; nil: they are not (`VHOST_VRING_F_LOG`). A
    /// number from a peer: nothing here is trusted.
    public var usedRing: UInt64?

    public init(isOn: Bool, usedRing: UInt64?) {
        self.isOn = isOn
        self.usedRing = usedRing
    }

    /// Nothing is marked.
    public static let off = QueueLogging(isOn: false, usedRing: nil)
}

/// Why a device refuses a message, as a sentence without a full stop.
public struct DeviceRefusal: Error, CustomStringConvertible, Sendable {
    public var description: String

    public init(_ description: String) {
        self.description = description
    }
}
