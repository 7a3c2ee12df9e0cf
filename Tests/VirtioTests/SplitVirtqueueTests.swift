import SimulationKit
import Testing
import Virtio

@Suite("Split virtqueue")
struct SplitVirtqueueTests {
    static let sizes = [1, 2, 100, 256, 1024]
    /// Where the indices begin: at 0, and so that they wrap soon.
    static let starts: [UInt16] = [0, 65530, 65535]

    @Test("takes heads in order and returns them in order, over the wrap of the index", arguments: sizes, starts)
    func goesRound(size: Int, start: UInt16) throws {
        let guest = try World.makeGuest(queueSize: size, startingAt: start)
        var ring = guest.makeVirtqueue(features: 0)
        #expect(ring.size == UInt16(size))
        for turn in 0..<40 {
            let count = 1 + turn % min(size, 7)
            let heads = (0..<count).map { UInt16((turn + 3 * $0) % size) }
            for head in heads { guest.makeAvailable(head) }
            let waiting = ring.availableCount()
            #expect(waiting == UInt16(count))
            let taken = heads.map { _ in ring.takeAvailable() }
            #expect(taken == heads)
            #expect(ring.nextAvailable == guest.availableIndex)
            for (index, head) in heads.enumerated() { ring.writeUsed(head: head, written: UInt32(turn + index)) }
            #expect(try guest.takeUsed() == nil, "nothing is shown before it is published")
            _ = ring.publish()
            for (index, head) in heads.enumerated() {
                #expect(try guest.takeUsed() == UsedElement(head: head, length: UInt32(turn + index)))
            }
            #expect(try guest.takeUsed() == nil)
        }
    }

    @Test("every index is passed once in 65536 requests", arguments: [2, 100])
    func wholeCircle(size: Int) throws {
        let guest = try World.makeGuest(queueSize: size, startingAt: 65000)
        var ring = guest.makeVirtqueue(features: RingFeatures.eventIndex)
        for index in 0..<66000 {
            let head = UInt16(index % size)
            guest.makeAvailable(head)
            guard ring.availableCount() == 1, ring.takeAvailable() == head else {
                Issue.record("request \(index) was not found")
                return
            }
            ring.writeUsed(head: head, written: 1)
            _ = ring.publish()
            guard try guest.takeUsed() == UsedElement(head: head, length: 1) else {
                Issue.record("request \(index) did not come back")
                return
            }
        }
    }

    @Test("a full ring is no nonsense; one more is", arguments: sizes, starts)
    func nonsensicalIndices(size: Int, start: UInt16) throws {
        func count(_ index: UInt16) throws -> UInt16? {
            let guest = try World.makeGuest(queueSize: size, startingAt: start)
            var ring = guest.makeVirtqueue(features: 0)
            guest.claimAvailable(index)
            return ring.availableCount()
        }
        #expect(try count(start) == 0)
        #expect(try count(start &+ UInt16(size)) == UInt16(size))
        for distance in [UInt16(size) + 1, 32768, 32769, 65534, 65535] {
            #expect(try count(start &+ distance) == nil, "an index \(distance) ahead")
        }
    }

    @Test("the index is looked at again only when what it promised is used up")
    func looksOnce() throws {
        let guest = try World.makeGuest(queueSize: 8)
        var ring = guest.makeVirtqueue(features: 0)
        guest.makeAvailable(1)
        guest.makeAvailable(2)
        let first = ring.availableCount()
        #expect(first == 2)
        guest.claimAvailable(40000)
        _ = ring.takeAvailable()
        let second = ring.availableCount()
        #expect(second == 1, "what was checked is used, whatever the guest has written since")
        _ = ring.takeAvailable()
        let third = ring.availableCount()
        #expect(third == nil)
    }

    @Test("a descriptor is read whole, as the specification lays it out")
    func readsDescriptors() throws {
        let guest = try World.makeGuest(queueSize: 4)
        guest.write(
            [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x05, 0x00, 0x21, 0x22], at: guest.ring.descriptors + 48)
        let descriptor = guest.makeVirtqueue(features: 0).descriptor(3)
        #expect(descriptor.address == 0x0807_0605_0403_0201)
        #expect(descriptor.length == 0x1413_1211)
        #expect(descriptor.hasNext)
        #expect(!descriptor.isWritable)
        #expect(descriptor.isIndirect)
        #expect(descriptor.next == 0x2221)
    }

    @Test("a head of any value is handed over as it is, and returned as it is")
    func handsOverAnyHead() throws {
        let guest = try World.makeGuest(queueSize: 4)
        var ring = guest.makeVirtqueue(features: 0)
        guest.makeAvailable(0xffff)
        _ = ring.availableCount()
        ring.prefetchAvailable(1)
        let head = ring.takeAvailable()
        #expect(head == 0xffff)
        ring.writeUsed(head: head, written: 0)
        _ = ring.publish()
        #expect(try guest.takeUsed() == UsedElement(head: 0xffff, length: 0))
    }

    @Test("a ring is taken up where it stands")
    func takesUpARing() throws {
        let guest = try World.makeGuest(queueSize: 8, startingAt: 100)
        var first = guest.makeVirtqueue(features: 0)
        for head in 0..<3 { guest.makeAvailable(UInt16(head)) }
        _ = first.availableCount()
        for _ in 0..<3 { first.writeUsed(head: first.takeAvailable(), written: 0) }
        _ = first.publish()
        guest.makeAvailable(5)
        var second = guest.makeVirtqueue(features: 0, nextAvailable: first.nextAvailable)
        let waiting = second.availableCount()
        #expect(waiting == 1)
        let head = second.takeAvailable()
        #expect(head == 5)
        second.writeUsed(head: 5, written: 9)
        _ = second.publish()
        #expect(guest.shownUsedIndex == 104)
    }

    @Test("a descriptor index beyond the table is our own bug")
    func descriptorIndexTraps() async {
        await #expect(processExitsWith: .failure) {
            let guest = try World.makeGuest(queueSize: 4)
            _ = guest.makeVirtqueue(features: 0).descriptor(4)
        }
    }
}
