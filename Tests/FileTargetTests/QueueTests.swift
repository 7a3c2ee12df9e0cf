import CWire
import FileTarget
import Glibc
import Inflight
import Platform
import SimulationKit
import Telemetry
import Testing
import Uring
import Virtio

/// A guest's queue in front of a share.
private final class QueueBench {
    let share: ShareBench
    let guest: SimulatedGuest
    var queue: FuseQueue<SplitRequestRing>
    private var next = 0
    private var address = QueueBench.start

    static let start: UInt64 = 0x10_0000

    init(_ description: ShareDescription = ShareDescription(tag: "t")) throws {
        share = try ShareBench(description)
        let placement = SimulatedGuest.Placement(guestAddress: Self.start, size: 1 << 20)
        guest = try SimulatedGuest([placement], queueSize: 64)
        let features = share.session.description.features
        queue = try FuseQueue(
            index: 1, ring: SplitRequestRing(guest.makeVirtqueue(features: features), log: .none),
            memory: guest.memory, call: -1)
    }

    /// Makes a request available: what the device reads, in buffers of these lengths, and buffers that it writes.
    ///
    /// - Returns: its head, and where the writable buffers are.
    func submit(_ bytes: [UInt8], cut: Int, writable: [Int]) -> (head: UInt16, places: [(UInt64, Int)]) {
        var pieces: [(UInt64, Int, Bool)] = []
        var done = 0
        while done < bytes.count {
            let count = min(cut, bytes.count - done)
            guest.write(Array(bytes[done..<done + count]), at: address)
            pieces.append((address, count, false))
            (address, done) = (address + UInt64(count) + 3, done + count)
        }
        for count in writable {
            pieces.append((address, count, true))
            address += UInt64(count) + 5
        }
        let head = next
        for (index, piece) in pieces.enumerated() {
            let isLast = index == pieces.count - 1
            guest.setDescriptor(
                Descriptor(
                    address: piece.0, length: UInt32(piece.1), flags: (piece.2 ? 2 : 0) | (isLast ? 0 : 1),
                    next: UInt16(next + 1)), at: next)
            next += 1
        }
        guest.makeAvailable(UInt16(head))
        return (UInt16(head), pieces.filter(\.2).map { ($0.0, $0.1) })
    }

    /// Goes round until nothing is under way.
    func turn() {
        repeat {
            _ = queue.resumeStalled(&share.server)
            _ = queue.service(&share.server)
            share.server.submit()
            share.server.runDeferredWork()
            while let completion = share.server.nextCompletion() {
                queue.finish(
                    token: RequestToken(rawValue: completion.token), result: completion.result, &share.server)
            }
            queue.publish()
            share.server.releaseCompletions()
        } while queue.outstanding > 0
    }

    func header(_ opcode: Int, _ node: UInt64, _ body: [UInt8], unique: UInt64 = 5) -> [UInt8] {
        var header = wire_fuse_in_header()
        (header.len, header.opcode) = (UInt32(40 + body.count), UInt32(opcode))
        (header.unique, header.nodeid) = (unique, node)
        return share.bytes(header) + body
    }

    /// What lies in the writable buffers.
    func read(_ places: [(UInt64, Int)]) -> [UInt8] { places.flatMap { guest.read($0.1, at: $0.0) } }
}

/// A queue whose driver locks one file, for several owners.
private struct LockBench {
    let bench: QueueBench
    private let node: UInt64
    private let handle: UInt64

    init() throws {
        var description = ShareDescription(tag: "t")
        description.hasPOSIXLocks = true
        bench = try QueueBench(description)
        let (file, handle) = try bench.share.create("a")
        (node, self.handle) = (file.nodeid, handle)
    }

    /// Makes a request available.
    func ask(_ opcode: Int, _ owner: UInt64, _ type: Int32) -> (head: UInt16, places: [(UInt64, Int)]) {
        var lock = wire_fuse_lk_in()
        (lock.fh, lock.owner) = (handle, owner)
        lock.lk = wire_fuse_file_lock(start: 0, end: 9, type: UInt32(type), pid: 1)
        return bench.submit(bench.header(opcode, node, bench.share.bytes(lock)), cut: 4096, writable: [16])
    }

    /// One round.
    ///
    /// - Returns: the requests that came back.
    func turn() throws -> [UInt16] {
        _ = bench.queue.service(&bench.share.server)
        _ = bench.queue.resumeWaiting(&bench.share.server)
        bench.queue.publish()
        var heads: [UInt16] = []
        while let element = try bench.guest.takeUsed() { heads.append(element.head) }
        return heads
    }
}

@Suite("A share's queue")
struct FuseQueueTests {
    @Test("requests in buffers of any shape are answered, all of a batch at once", arguments: [1, 7, 40, 4096])
    func shapes(cut: Int) throws {
        let bench = try QueueBench()
        try bench.share.put("a", "hello")
        let node = try bench.share.lookUp("a").nodeid
        let handle = try bench.share.open(node)
        var arguments = wire_fuse_read_in()
        (arguments.fh, arguments.size) = (handle, 4096)
        let cut = max(cut, 4)
        let read = bench.submit(
            bench.header(WIRE_FUSE_READ, node, bench.share.bytes(arguments)), cut: max(cut, 20),
            writable: [10, 7, 3, 500])
        let look = bench.submit(
            bench.header(WIRE_FUSE_LOOKUP, 1, bench.share.text("a"), unique: 6), cut: max(cut, 20), writable: [16, 128])
        let forget = bench.submit(
            bench.header(WIRE_FUSE_FORGET, node, bench.share.bytes(wire_fuse_forget_in(nlookup: 1))), cut: max(cut, 20),
            writable: [])
        bench.turn()
        var used: [UInt16: UInt32] = [:]
        while let element = try bench.guest.takeUsed() { used[element.head] = element.length }
        #expect(used == [read.head: 21, look.head: 144, forget.head: 0])
        let answer = bench.read(read.places)
        #expect(Array(answer[16..<21]) == Array("hello".utf8))
        #expect(answer[0] == 21 && answer[8] == 5)
        #expect(bench.read(look.places)[8] == 6)
        let counts = bench.queue.counts
        #expect(counts[.read].operations == 1)
    }

    @Test("so many wait for a lock that others still find a place; one more is refused")
    func waitingForLocks() throws {
        let locks = try LockBench()
        let bench = locks.bench
        let first = locks.ask(WIRE_FUSE_SETLK, 1, F_WRLCK)
        #expect(try locks.turn() == [first.head])
        // A ring of 64 descriptors: eight wait.
        let waiting = (0..<8).map { _ in locks.ask(WIRE_FUSE_SETLKW, 2, F_WRLCK).head }
        #expect(try locks.turn() == [])
        let refused = locks.ask(WIRE_FUSE_SETLKW, 2, F_WRLCK)
        #expect(try locks.turn() == [refused.head])
        #expect(Array(bench.read(refused.places)[4..<8]) == bench.share.bytes(-ENOLCK))
        let unlock = locks.ask(WIRE_FUSE_SETLK, 1, F_UNLCK)
        #expect(try locks.turn() == [unlock.head] + waiting)
    }

    @Test func `a request that waits for a lock is not finished by the completion of an earlier one`() throws {
        let locks = try LockBench()
        let bench = locks.bench
        let first = locks.ask(WIRE_FUSE_SETLK, 1, F_WRLCK)
        #expect(try locks.turn() == [first.head])
        let waiting = locks.ask(WIRE_FUSE_SETLKW, 2, F_WRLCK)
        #expect(bench.queue.service(&bench.share.server) == 1)
        // As a worker that died may have left it, of a request that it has answered, with the sequence number that its
        // record ends with.
        let earlier = RequestToken(sequence: 0, queue: 1, head: waiting.head)
        bench.queue.finish(token: earlier, result: 4096, &bench.share.server)
        let stale = bench.queue.counts.staleCompletions
        #expect(stale == 1)
        #expect(try locks.turn() == [])
        let unlock = locks.ask(WIRE_FUSE_SETLK, 1, F_UNLCK)
        #expect(try locks.turn() == [unlock.head, waiting.head])
        #expect(Array(bench.read(waiting.places)[4..<8]) == [0, 0, 0, 0])
        let outstanding = bench.queue.outstanding
        #expect(outstanding == 0)
    }

    @Test("a chain that makes no sense comes back empty, and the queue goes on")
    func broken() throws {
        let bench = try QueueBench()
        // Outside guest memory.
        bench.guest.setDescriptor(Descriptor(address: 1, length: 64, flags: 0, next: 0), at: 60)
        bench.guest.makeAvailable(60)
        // Too short for a header.
        let short = bench.submit([1, 2, 3], cut: 3, writable: [64])
        let good = bench.submit(bench.header(WIRE_FUSE_STATFS, 1, []), cut: 40, writable: [96])
        bench.turn()
        var used: [UInt16: UInt32] = [:]
        while let element = try bench.guest.takeUsed() { used[element.head] = element.length }
        #expect(used == [60: 0, short.head: 0, good.head: 96])
        let isBroken = bench.queue.isBroken
        #expect(!isBroken)
        // A ring that makes no sense is served no more.
        bench.guest.claimAvailable(1000)
        let taken = bench.queue.service(&bench.share.server)
        let isBrokenNow = bench.queue.isBroken
        #expect(taken == 0 && isBrokenNow)
    }
}
