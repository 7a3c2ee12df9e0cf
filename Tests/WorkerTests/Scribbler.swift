import FrontendKit
import Platform

/// A thread that writes nonsense, and half-sense, into rings, descriptors and headers while they are in use.
///
/// One of several for the same queues makes requests available, never more than a ring takes: so the queues are served
/// on all the time.
final class Scribbler {
    private var thread: JoinableThread?

    init(_ endpoints: [QueueEndpoint], seed: UInt64, makesAvailable: Bool, writes: Int = 8_000) throws {
        thread = try JoinableThread(name: "scribbler") {
            var random = SeededGenerator(seed: seed)
            var indices = [UInt16](repeating: 0, count: endpoints.count)
            for step in 0..<writes {
                let queue = Int(random.next(below: UInt64(endpoints.count)))
                let endpoint = endpoints[queue]
                if endpoint.isPacked {
                    Self.writePacked(endpoint, &indices[queue], makesAvailable, &random)
                    if step % 4 == 0 { Self.writeHeader(endpoint, &random) }
                    if step % 16 == 0 { endpoint.kick.signal() }
                    continue
                }
                Self.writeDescriptor(endpoint, &random)
                if step % 4 == 0 { Self.writeHeader(endpoint, &random) }
                if step % 8 == 0 { endpoint.memory.write([UInt8(step / 8 % 2), 0], at: endpoint.ring.availableRing) }
                guard makesAvailable else { continue }
                Self.makeAvailable(endpoint, &indices[queue], &random)
                if step % 16 == 0 { endpoint.kick.signal() }
            }
        }
    }

    func finish() {
        thread.take()?.join()
    }

    private static func bytes<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    /// Any heads, the same ones often, as many as the ring takes.
    private static func makeAvailable(
        _ endpoint: QueueEndpoint, _ index: inout UInt16, _ random: inout SeededGenerator
    ) {
        let (ring, memory) = (endpoint.ring, endpoint.memory)
        let used = memory.read(2, at: ring.usedRing + 2)
        // The device may have been made to write over its own used ring: then the index there says nothing.
        let outstanding = UInt64(index &- (UInt16(used[0]) | UInt16(used[1]) << 8))
        guard outstanding < UInt64(ring.size) else { return }
        let room = UInt64(ring.size) - outstanding
        for _ in 0...random.next(below: min(room, 8)) {
            let head = UInt16(random.next(below: UInt64(ring.size + 1)))
            memory.write(bytes(head), at: ring.availableRing + 4 + 2 * (UInt64(index) % UInt64(ring.size)))
            index &+= 1
            memory.write(bytes(index), at: ring.availableRing + 2)
        }
    }

    private static func writeHeader(_ endpoint: QueueEndpoint, _ random: inout SeededGenerator) {
        let kinds: [UInt32] = [0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 99]
        let sectors: [UInt64] = [0, 1, 2, 3, 100, 8000, 16383, 16384, UInt64.max, 1 << 55]
        let kind = kinds[Int(random.next(below: UInt64(kinds.count)))]
        let sector = sectors[Int(random.next(below: UInt64(sectors.count)))]
        endpoint.memory.write(
            bytes(kind) + bytes(0 as UInt32) + bytes(sector), at: 0x10_0000 + 16 * random.next(below: 64))
    }

    private static func writeDescriptor(_ endpoint: QueueEndpoint, _ random: inout SeededGenerator) {
        let index = random.next(below: UInt64(endpoint.ring.size))
        let descriptor = third(of: endpoint, at: index, &random)
        let place = endpoint.ring.descriptorTable + 16 * index
        endpoint.memory.write(Descriptor.bytes(of: [descriptor]), at: place)
    }

    /// Whoever makes requests available in a packed ring does so one after the other, as many as it likes; the others
    /// write over what is there, whether the device has it or not.
    private static func writePacked(
        _ endpoint: QueueEndpoint, _ position: inout UInt16, _ makesAvailable: Bool, _ random: inout SeededGenerator
    ) {
        let size = UInt64(endpoint.ring.size)
        let first = makesAvailable ? UInt64(position) : random.next(below: 2 * size)
        // The last part first: the device takes a chain that goes on where nothing is available for a broken ring.
        for part in (0..<min(3, size)).reversed() {
            let place = (first + part) % (2 * size)
            var descriptor = third(of: endpoint, at: part, &random)
            if part == min(3, size) - 1, random.next(below: 64) > 0 { descriptor.flags.remove(.next) }
            var bytes = Descriptor.bytes(of: [descriptor])
            // As `pvirtq_desc`: id, then flags, with AVAIL or USED for the lap.
            let marks: UInt16 = random.next(below: 128) == 0 ? 0 : place < size ? 0x80 : 0x8000
            bytes[12...15] =
                (Self.bytes(UInt16(truncatingIfNeeded: random.next()))
                + Self.bytes(descriptor.flags.rawValue & 7 | marks))[...]
            // Whoever only writes over things leaves the marks, mostly.
            let count = makesAvailable || random.next(below: 64) == 0 ? 16 : 12
            endpoint.memory.write(Array(bytes.prefix(count)), at: endpoint.ring.descriptorTable + 16 * (place % size))
        }
        if makesAvailable { position = UInt16((first + min(3, size)) % (2 * size)) }
    }

    /// Mostly one third of a request, each third in its place; sometimes anything.
    private static func third(
        of endpoint: QueueEndpoint, at index: UInt64, _ random: inout SeededGenerator
    ) -> Descriptor {
        let ring = endpoint.ring
        let next = UInt16((index + 1) % UInt64(ring.size))
        let header = 0x10_0000 + 16 * random.next(below: 64)
        return
            switch (index % 3, random.next(below: 4))
        {
        case (_, 0):
            Descriptor(
                address: [header, ring.descriptorTable, random.next(), 0 &- random.next(below: 16)][
                    Int(random.next(below: 4))],
                length: [16, 1, 512, UInt32(truncatingIfNeeded: random.next())][Int(random.next(below: 4))],
                flags: .init(rawValue: UInt16(random.next(below: 8))),
                next: UInt16(random.next(below: UInt64(ring.size + 1))))
        case (0, _): Descriptor(address: header, length: 16, flags: .next, next: next)
        case (1, let kind):
            Descriptor(
                address: 0x20_0000 + random.next(below: 4096), length: UInt32(random.next(below: 17)) * 512,
                flags: kind == 1 ? .next : [.next, .deviceWrites], next: next)
        default: Descriptor(address: header + 15, length: 1, flags: .deviceWrites)
        }
    }
}
