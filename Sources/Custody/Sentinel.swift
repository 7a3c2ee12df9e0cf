internal import CLinux
internal import Glibc
public import Platform
internal import Synchronization

/// The thread by which others know that this process lives: it holds the record's mutex and does nothing else, so that
/// nothing keeps the kernel from passing the mutex on when the process dies. A pidfd would tell of the death only when
/// all guest memory has been unmapped and the kernel has let go of every request.
///
/// A worker that stands by waits in the same mutex: the kernel itself hands it the device.
public final class Sentinel: Sendable {
    private let record: SessionRecord
    private let orders: Orders
    private let acquired: EventFD

    private final class Orders: Sendable {
        let wakeUp: OwnedFD
        let wantsToHold = Atomic<Bool>(false)
        /// Times that it was told to let go. Told to let go and to hold, it may be woken once.
        let releases = Atomic<UInt64>(0)
        let predecessorDied = Atomic<Bool>(false)
        let failure = Atomic<Int32>(0)

        init() throws(Errno) {
            wakeUp = try makeBlockingEvent()
        }
    }

    /// Starts the thread. It ends with the process.
    ///
    /// - Throws: when no thread or descriptor can be had.
    public init(_ record: SessionRecord) throws(Errno) {
        let orders = try Orders()
        let acquired = try EventFD()
        self.record = record
        self.orders = orders
        let number = acquired.fd.number
        self.acquired = acquired
        let thread = try JoinableThread(name: "sentinel") { Self.run(record, orders, acquired: number) }
        thread.detach()
    }

    /// Becomes readable when the mutex is held.
    public var acquiredDescriptor: Int32 { acquired.fd.number }

    /// Waits for the mutex, in the thread; `acquiredDescriptor` tells when it is held.
    public func acquire() {
        orders.wantsToHold.store(true, ordering: .releasing)
        signalEvent(orders.wakeUp.number)
    }

    /// Takes note of the acquisition.
    ///
    /// - Returns: whether the holder before died with it; nil when the mutex is not held yet.
    /// - Throws: when the mutex cannot be had at all.
    public func takeAcquisition() throws(Errno) -> Bool? {
        guard acquired.clear() else { return nil }
        let failure = orders.failure.load(ordering: .acquiring)
        guard failure == 0 else { throw Errno(rawValue: failure) }
        return orders.predecessorDied.load(ordering: .acquiring)
    }

    /// Lets go of the mutex.
    public func release() {
        orders.wantsToHold.store(false, ordering: .releasing)
        orders.releases.add(1, ordering: .releasing)
        signalEvent(orders.wakeUp.number)
    }

    private static func run(_ record: SessionRecord, _ orders: Orders, acquired: Int32) {
        var holds = false
        var releases: UInt64 = 0
        while true {
            waitForEvent(orders.wakeUp.number)
            let newReleases = orders.releases.load(ordering: .acquiring)
            if newReleases != releases, holds {
                _ = unsafe clinux_sentinel_unlock(record.sentinel)
                holds = false
            }
            releases = newReleases
            if !holds, orders.wantsToHold.load(ordering: .acquiring) {
                let result = unsafe clinux_sentinel_lock(record.sentinel)
                holds = result == 0 || result == EOWNERDEAD
                orders.predecessorDied.store(result == EOWNERDEAD, ordering: .releasing)
                orders.failure.store(holds ? 0 : result, ordering: .releasing)
                signalEvent(acquired)
            }
        }
    }
}

/// Names a thread of a worker to another worker of its device.
public struct ThreadName: Hashable, Sendable {
    /// As the supervisor numbers it.
    public var process: Int32
    /// As its own PID namespace does; 0: all of the process.
    public var thread: Int32

    public init(process: Int32, thread: Int32) {
        self.process = process
        self.thread = thread
    }

    /// - Parameter value: of a message.
    public init(value: UInt64) {
        self.init(process: Int32(truncatingIfNeeded: value >> 32), thread: Int32(truncatingIfNeeded: value))
    }

    /// As a message carries it.
    public var value: UInt64 { UInt64(UInt32(bitPattern: process)) << 32 | UInt64(UInt32(bitPattern: thread)) }
}
