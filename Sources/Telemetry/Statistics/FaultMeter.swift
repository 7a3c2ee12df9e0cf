public import CWire

/// What a storage has found, by kind.
public enum StorageFault: Int, Sendable, CaseIterable {
    /// ENOSPC and EDQUOT: no room on the host.
    case noSpace
    /// EAGAIN and EINTR: tried again.
    case retry
    /// A short transfer that was continued.
    case shortTransfer
    /// The image is shorter than the disk.
    case unexpectedEnd
    /// EIO and every other error.
    case error
    /// Not a fault of the storage's: a part of a request that went over a bounce buffer.
    case bounce
}

/// Counts what one loop's storage finds. Belongs to the loop's thread; allocates nothing.
@safe public struct FaultMeter: ~Copyable, @unchecked Sendable {
    @usableFromInline let block: UnsafeMutableRawPointer
    /// nil: nobody else looks.
    private let statistics: DeviceStatistics?

    /// - Parameter statistics: nil: nobody else looks.
    public init(_ statistics: DeviceStatistics?, loop: Int) {
        self.statistics = statistics
        if let statistics {
            unsafe block = statistics.loopBlock(loop)
        } else {
            let count = MemoryLayout<wire_statistics_loop>.size
            unsafe block = .allocate(byteCount: count, alignment: 64)
            unsafe block.initializeMemory(as: UInt8.self, repeating: 0, count: count)
        }
    }

    deinit {
        if statistics == nil { unsafe block.deallocate() }
    }

    /// Counts one.
    @inlinable
    public func count(_ fault: StorageFault) {
        let place = unsafe block + 8 * fault.rawValue
        unsafe wire_store64(place, wire_load64(place) &+ 1)
    }

    /// Whether a request that finds no room on the host waits for it.
    public var holdsForRoom: Bool { statistics.map { RoomPolicy($0).holds } ?? false }

    /// How many have been counted, since the device was made.
    @inlinable
    public subscript(_ fault: StorageFault) -> UInt64 { unsafe wire_load64(block + 8 * fault.rawValue) }
}
