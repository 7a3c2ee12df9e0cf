/// Notices every byte of guest memory that changes although nobody was allowed to change it.
public struct MemoryGuard {
    private var expected: [(start: UInt64, bytes: [UInt8])]

    /// Takes guest memory as it is now, the ring included, for what it should stay.
    public init(_ guest: SimulatedGuest) {
        expected = guest.driverMemory.snapshot()
    }

    /// Takes over what lies in a range now: the device, or the driver, may have written there. Parts of it that are in
    /// no region do not matter.
    public mutating func allow(_ address: UInt64, _ count: Int, in guest: SimulatedGuest) {
        for index in expected.indices {
            // No copy of the element: it would be written to while it is shared, and be copied whole.
            let regionStart = expected[index].start
            let regionEnd = regionStart + UInt64(expected[index].bytes.count)
            let (sum, overflow) = address.addingReportingOverflow(UInt64(count))
            let start = max(address, regionStart)
            let end = min(overflow ? .max : sum, regionEnd)
            guard start < end else { continue }
            let offset = Int(start - regionStart)
            let length = Int(end - start)
            expected[index].bytes.replaceSubrange(offset..<offset + length, with: guest.read(length, at: start))
        }
    }

    /// The pages of 4096 bytes in which any byte has changed.
    func changedPages(in guest: SimulatedGuest) -> Set<UInt64> {
        var pages: Set<UInt64> = []
        for region in expected {
            var offset = 0
            while offset < region.bytes.count {
                let address = region.start + UInt64(offset)
                let count = min(region.bytes.count - offset, Int(4096 - address % 4096))
                if guest.read(count, at: address) != Array(region.bytes[offset..<offset + count]) {
                    pages.insert(address / 4096)
                }
                offset += count
            }
        }
        return pages
    }

    /// Takes over the ring: descriptors, available and used ring.
    public mutating func allowRing(in guest: SimulatedGuest) {
        allow(RingPlacement.guestAddress, guest.ring.byteCount, in: guest)
    }

    /// The guest address of the first byte that was changed by nobody who may; nil when there is none.
    public func firstViolation(in guest: SimulatedGuest) -> UInt64? {
        for region in expected {
            if let address = guest.driverMemory.firstDifference(at: region.start, from: region.bytes) { return address }
        }
        return nil
    }
}
