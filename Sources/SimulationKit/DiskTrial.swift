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
    /// Where the device marks what it writes; nil: nowhere.
    private var marks: SimulatedDirtyLog?
    /// Pages that it has written since it was idle.
    private var written: Set<UInt64> = []
    /// What requests in flight have given away, by their head or id, of which there may be several.
    private var given: [UInt16: [ForgedRequest]] = [:]

    /// - Parameters:
    ///   - features: as agreed on, but for the kind of ring.
    ///   - isPacked: the guest has a packed ring.
    /// - Throws: when there is not enough memory.
    public init(
        _ backend: consuming Backend, _ description: DiskDescription, queueSize: Int, features: UInt64,
        writesThrough: Bool, isPacked: Bool = false
    ) throws(Errno) {
        // Close to the wrap of the index; and of a packed ring, to the end of its first lap.
        guest = try SimulatedGuest(
            RequestForge.placements, queueSize: queueSize, startingAt: isPacked ? UInt16(queueSize - 1) : 65530,
            isPacked: isPacked)
        let queue = try SimulatedQueue(guest, disk: description, features: features, writesThrough: writesThrough)
        disk = SimulatedDisk(backend, [queue])
        forge = RequestForge(guest, sectors: description.sectors)
        watch = MemoryGuard(guest)
    }

    /// Whether one more request fits into the ring.
    public var hasRoom: Bool { guest.hasRoom }

    /// Sends a request, which the device takes at once. There is room for it.
    ///
    /// - Returns: how many the device finds: in a packed ring, one that was spoilt may be several.
    @discardableResult
    public func send(_ choices: inout some Choices) -> Int {
        let requests = forge.make(&choices)
        for request in requests { given[request.head, default: []].append(request) }
        // What the driver itself has changed.
        watch = MemoryGuard(guest)
        disk.turn()
        checkMarks()
        takeAnswers()
        return requests.count
    }

    /// Lets the device mark what it writes from now on. Whenever it has nothing in flight, every page that it has
    /// written must be marked.
    ///
    /// - Throws: when there is not enough memory.
    public func logWrites() throws(Errno) {
        let log = try SimulatedDirtyLog(pages: 1 << 29)
        disk.queues[0].setDirtyLog(log.log)
        marks = log
    }

    private func checkMarks() {
        guard let marks else { return }
        written.formUnion(watch.changedPages(in: guest))
        guard disk.queues[0].outstanding == 0 else { return }
        for page in written where !marks.isMarked(page) {
            preconditionFailure("page 0x\(String(page, radix: 16)) was written and is not marked")
        }
        written = []
        marks.clear()
    }

    /// Makes the ring senseless: more requests than it can hold, or in a packed one a chain without an end.
    public func claimNonsense(_ choices: inout some Choices) {
        if guest.isPacked {
            forge.makeEndlessChain(&choices)
            // What the driver itself has changed.
            watch = MemoryGuard(guest)
            return
        }
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
                if guest.isPacked {
                    // Of several with one id, nothing tells which has come back.
                    if !guest.isInFlight(used.head) { given[used.head] = nil }
                } else {
                    // Of several on the same head, the one in flight longest is the last to come back.
                    given[used.head] = requests.count > 1 ? Array(requests.dropLast()) : nil
                }
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
