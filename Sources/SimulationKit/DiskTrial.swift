public import BlockTarget
public import Platform

/// A disk, a guest that sends it forged requests, and what must hold whatever the guest sends.
///
/// A violation traps: it is called by fuzzers and by tests that expect none.
public final class DiskTrial<Backend: StorageBackend & ~Copyable> {
    public let disk: SimulatedDisk<Backend>
    public let guest: SimulatedGuest
    private var forge: RequestForge
    private var watch: MemoryGuard
    /// What requests in flight have given away, by their head; a head may be in flight more than once.
    private var given: [UInt16: [ForgedRequest]] = [:]

    /// - Throws: when there is not enough memory.
    public init(
        _ backend: consuming Backend, _ description: DiskDescription, queueSize: Int, features: UInt64,
        writesThrough: Bool
    ) throws(Errno) {
        guest = try SimulatedGuest(RequestForge.placements, queueSize: queueSize, startingAt: 65530)
        let queue = try SimulatedQueue(guest, disk: description, features: features, writesThrough: writesThrough)
        disk = SimulatedDisk(backend, [queue])
        forge = RequestForge(guest, sectors: description.sectors)
        watch = MemoryGuard(guest)
    }

    /// Whether one more request fits into the ring.
    public var hasRoom: Bool { guest.hasRoom }

    /// Sends a request, which the device takes at once.
    public func send(_ choices: inout some Choices) {
        let request = forge.make(&choices)
        given[request.head, default: []].append(request)
        // What the driver itself has changed.
        watch = MemoryGuard(guest)
        disk.turn()
        takeAnswers()
    }

    /// Claims more requests than the ring can hold.
    public func claimNonsense(_ choices: inout some Choices) {
        let distance = guest.ring.size + 1 + choices.below(65535 - guest.ring.size)
        guest.claimAvailable(guest.availableIndex &+ UInt16(distance))
    }

    /// Takes what has come back: each element is of a request in flight, and says no more than was given away.
    public func takeAnswers() {
        for (address, count) in given.values.joined().flatMap(\.writable) { watch.allow(address, count, in: guest) }
        watch.allowRing(in: guest)
        if let address = watch.firstViolation(in: guest) {
            preconditionFailure("the device wrote to 0x\(String(address, radix: 16)), which nobody gave it")
        }
        do throws(GuestComplaint) {
            while let used = try guest.takeUsed() {
                guard let requests = given[used.head] else { preconditionFailure("head \(used.head) came back twice") }
                let most = requests.map { $0.writable.reduce(0) { $0 + $1.count } }.max() ?? 0
                precondition(Int(used.length) <= most, "\(used.length) bytes written into \(most)")
                // Of several on the same head, the one in flight longest is the last to come back.
                given[used.head] = requests.count > 1 ? Array(requests.dropLast()) : nil
            }
        } catch {
            preconditionFailure("\(error)")
        }
    }

    /// Lets everything end; nothing is left over.
    public func finish() {
        precondition(disk.settle(), "the disk runs away")
        takeAnswers()
        precondition(disk.queues[0].outstanding == 0, "\(disk.queues[0].outstanding) requests are lost")
        precondition(
            disk.queues[0].isBroken || guest.outstanding == 0, "\(guest.outstanding) requests were not answered")
    }
}
