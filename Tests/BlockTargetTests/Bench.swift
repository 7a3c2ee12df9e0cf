import BlockTarget
import Platform
import SimulationKit
import Telemetry
import Testing
import Virtio

/// How a request came back.
struct Answer: Equatable, CustomStringConvertible {
    /// The status byte; 0xff when none was written.
    var status: UInt8
    /// Bytes that the device says it wrote.
    var usedLength: UInt32
    /// What lies in front of the status byte.
    var data: [UInt8]

    var description: String { "status \(status), used length \(usedLength), \(data.count) bytes" }

    /// Whether status and used length are these, exactly.
    func isAnswered(_ status: UInt8, usedLength: UInt32) -> Bool {
        self.status == status && self.usedLength == usedLength
    }
}

let ok: UInt8 = 0
let ioError: UInt8 = 1
let unsupported: UInt8 = 2

/// Two regions that follow each other: buffers cross the border where they happen to lie on it.
enum BenchMemory {
    static let start: UInt64 = 0x10_0000
    static let regionBytes = 1 << 20
    static let end = start + UInt64(2 * regionBytes)
    static let placements = [
        SimulatedGuest.Placement(guestAddress: start, size: regionBytes),
        SimulatedGuest.Placement(guestAddress: start + UInt64(regionBytes), size: regionBytes, fileOffset: 0x2000),
    ]
}

/// A disk and a guest that drives its first queue, request by request. Every byte of guest memory that no request gave
/// away is watched.
final class Bench<Backend: StorageBackend & ~Copyable> {
    let disk: SimulatedDisk<Backend>
    let guest: SimulatedGuest
    private var watch: MemoryGuard
    private var nextAddress = BenchMemory.start
    private var nextDescriptor = 0
    private var pending: [UInt16: Pending] = [:]

    private struct Pending {
        var writable: [(address: UInt64, count: Int)]
        var descriptors = 0
    }

    init(
        _ backend: consuming Backend, _ description: DiskDescription, queueSize: Int = 128, features: UInt64? = nil,
        writesThrough: Bool = false, call: Int32 = -1, statistics: DeviceStatistics? = nil
    ) throws {
        guest = try SimulatedGuest(BenchMemory.placements, queueSize: queueSize)
        let queue = try SimulatedQueue(
            guest, disk: description, features: features, writesThrough: writesThrough, call: call,
            statistics: statistics)
        disk = SimulatedDisk(backend, [queue])
        watch = MemoryGuard(guest)
    }

    var counts: QueueCounts { disk.queues[0].counts }
    var faults: StorageFaults { disk.backend.faults }
    var outstanding: Int { disk.queues[0].outstanding }
    var isBroken: Bool { disk.queues[0].isBroken }

    /// Lays a request out and makes it available; the device has not looked yet.
    ///
    /// - Returns: its head.
    @discardableResult
    func submit(_ request: GuestRequest) -> UInt16 {
        if pending.isEmpty { (nextAddress, nextDescriptor) = (BenchMemory.start, 0) }
        var chain: [Descriptor] = []
        var given = Pending(writable: [])
        var rest = request.readable[...]
        for length in request.readablePieces ?? filled(min(16, rest.count), rest.count - 16) {
            let address = place(length, request)
            write(Array(rest.prefix(length)), at: address)
            rest = rest.dropFirst(length)
            chain.append(Descriptor(address: address, length: UInt32(length), flags: 0, next: 0))
        }
        precondition(rest.isEmpty, "the pieces are not the request")
        let writable = request.writablePieces ?? filled(request.writableCount - 1, 1)
        precondition(writable.reduce(0, +) == request.writableCount, "the pieces are not the request")
        for length in writable {
            let address = place(length, request)
            write([UInt8](repeating: 0xff, count: length), at: address)
            given.writable.append((address, length))
            chain.append(Descriptor(address: address, length: UInt32(length), flags: 2, next: 0))
        }
        given.descriptors = request.isIndirect ? 1 : chain.count
        let used = pending.values.reduce(given.descriptors) { $0 + $1.descriptors }
        precondition(used <= guest.ring.size, "the ring is too small for the test")
        let head = request.isIndirect ? setIndirect(chain) : setDirect(chain)
        pending[head] = given
        guest.makeAvailable(head)
        watch.allowRing(in: guest)
        return head
    }

    private func write(_ bytes: [UInt8], at address: UInt64) {
        guest.write(bytes, at: address)
        watch.allow(address, bytes.count, in: guest)
    }

    /// Room for a piece, with guard bytes behind it.
    private func place(_ length: Int, _ request: GuestRequest) -> UInt64 {
        var address = nextAddress
        if let residue = request.residue, length > 1 {
            address = (address + 4095) / 4096 * 4096 + UInt64(residue)
        }
        nextAddress = address + UInt64(length) + 9
        precondition(nextAddress < BenchMemory.end, "guest memory is used up")
        return address
    }

    private func setDirect(_ chain: [Descriptor]) -> UInt16 {
        let size = guest.ring.size
        let head = nextDescriptor
        for (index, descriptor) in chain.enumerated() {
            guest.setDescriptor(
                linked(descriptor, index, chain.count, (head + index + 1) % size), at: (head + index) % size)
        }
        nextDescriptor = (head + chain.count) % size
        return UInt16(head)
    }

    private func setIndirect(_ chain: [Descriptor]) -> UInt16 {
        nextAddress = (nextAddress + 15) / 16 * 16
        let table = nextAddress
        nextAddress += UInt64(16 * chain.count)
        guest.setTable(chain.enumerated().map { linked($1, $0, chain.count, $0 + 1) }, at: table)
        watch.allow(table, 16 * chain.count, in: guest)
        let head = nextDescriptor
        guest.setDescriptor(
            Descriptor(address: table, length: UInt32(16 * chain.count), flags: 4, next: 0), at: head)
        nextDescriptor = (head + 1) % guest.ring.size
        return UInt16(head)
    }

    private func filled(_ lengths: Int...) -> [Int] { lengths.filter { $0 > 0 } }

    private func linked(_ descriptor: Descriptor, _ index: Int, _ count: Int, _ next: Int) -> Descriptor {
        guard index + 1 < count else { return descriptor }
        var descriptor = descriptor
        descriptor.flags |= 1
        descriptor.next = UInt16(next)
        return descriptor
    }

    /// Takes what has come back, by head; checks that no byte was written that was not given.
    func answers() throws -> [UInt16: Answer] {
        var answers: [UInt16: Answer] = [:]
        for given in pending.values {
            for (address, count) in given.writable { watch.allow(address, count, in: guest) }
        }
        watch.allowRing(in: guest)
        if let address = watch.firstViolation(in: guest) {
            Issue.record("the device wrote to 0x\(String(address, radix: 16)), which nobody gave it")
        }
        while let used = try guest.takeUsed() {
            guard let given = pending.removeValue(forKey: used.head) else {
                throw GuestComplaint.notInFlight(UInt32(used.head))
            }
            let bytes = given.writable.flatMap { guest.read($0.count, at: $0.address) }
            answers[used.head] = Answer(
                status: bytes.last ?? 0xff, usedLength: used.length, data: Array(bytes.dropLast()))
        }
        return answers
    }

    /// One request, from the ring to the ring.
    func perform(_ request: GuestRequest) throws -> Answer {
        let head = submit(request)
        #expect(disk.settle())
        let answers = try answers()
        #expect(answers.count == 1)
        return try #require(answers[head])
    }
}
