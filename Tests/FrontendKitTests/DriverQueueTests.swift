import FrontendKit
import Platform
import Testing

/// The driver against a device in the same thread, which does right or wrong as a test wants.
@Suite struct DriverQueueTests {
    struct Pair: ~Copyable {
        var driver: DriverQueue
        var peer: LoopbackPeer

        init(size: Int, usesEventIndex: Bool = false, startingAt index: UInt16? = nil) throws {
            let memory = try GuestMemory(size: 8 << 20)
            var allocator = GuestAllocator(memory.regions[0])
            let endpoint = try QueueEndpoint(memory: memory, ring: SplitRing(size: size, in: &allocator))
            driver = DriverQueue(endpoint, usesEventIndex: usesEventIndex, startingAt: index)
            peer = LoopbackPeer(endpoint)
        }

        /// Makes the chain at `head` available.
        mutating func offer(_ head: Int) {
            driver.stage(head: head)
            driver.publish()
        }
    }

    @Test(arguments: [1, 2, 3, 100, 128, 32768])
    func everyRequestComesBackInAnySizeOfRing(size: Int) throws {
        var pair = try Pair(size: size)
        var random = SeededGenerator(seed: UInt64(size))
        var free = Array(0..<size)
        var held: [UInt16] = []
        var completed = 0
        // Twice around the 16-bit index, with the device holding requests back and answering out of order.
        while completed < 140_000 {
            while pair.driver.hasRoom, !free.isEmpty, random.next(below: 4) > 0 {
                pair.driver.stage(head: free.removeLast())
            }
            pair.driver.publish()
            while let head = pair.peer.nextHead() { held.append(head) }
            while !held.isEmpty, random.next(below: 8) > 0 {
                held.swapAt(Int(random.next(below: UInt64(held.count))), held.count - 1)
                let head = held.removeLast()
                pair.peer.complete(id: UInt32(head), length: UInt32(head) + 1)
            }
            while let used = try pair.driver.nextCompletion() {
                #expect(used.length == UInt32(used.head) + 1)
                free.append(used.head)
                completed += 1
            }
        }
        #expect(pair.driver.outstanding + free.count == size)
    }

    @Test func nothingIsVisibleBeforeItIsPublished() throws {
        var pair = try Pair(size: 8)
        pair.driver.stage(head: 3)
        let before = pair.peer.nextHead()
        pair.driver.publish()
        let after = pair.peer.nextHead()
        #expect((before, after) == (nil, 3))
    }

    @Test func anIdThatIsNoDescriptorIsNoticed() throws {
        var pair = try Pair(size: 8)
        pair.offer(0)
        pair.peer.complete(id: 8, length: 0)
        #expect(throws: QueueViolation.idOutOfRange(8, size: 8)) { try pair.driver.nextCompletion() }
    }

    @Test func anIdThatIsNotInFlightIsNoticed() throws {
        var pair = try Pair(size: 8)
        pair.offer(0)
        pair.peer.complete(id: 1, length: 0)
        #expect(throws: QueueViolation.idNotInFlight(1)) { try pair.driver.nextCompletion() }
    }

    @Test func aRequestThatComesBackTwiceIsNoticed() throws {
        var pair = try Pair(size: 8)
        pair.offer(0)
        pair.offer(1)
        pair.peer.complete(id: 0, length: 0)
        pair.peer.complete(id: 0, length: 0)
        #expect(try pair.driver.nextCompletion() == UsedElement(head: 0, length: 0))
        #expect(throws: QueueViolation.idNotInFlight(0)) { try pair.driver.nextCompletion() }
    }

    @Test func anIndexAheadOfWhatWasAvailableIsNoticed() throws {
        var pair = try Pair(size: 8)
        pair.offer(0)
        // Staged but not published: the device cannot have it.
        pair.driver.stage(head: 1)
        pair.peer.writeUsedIndex(2)
        #expect(throws: QueueViolation.usedIndexAhead(by: 2, outstanding: 1)) { try pair.driver.nextCompletion() }
    }

    @Test func anIndexThatGoesBackIsNoticed() throws {
        var pair = try Pair(size: 8)
        pair.offer(0)
        pair.peer.complete(id: 0, length: 0)
        #expect(try pair.driver.nextCompletion() != nil)
        pair.peer.writeUsedIndex(0)
        #expect(throws: QueueViolation.usedIndexAhead(by: 65535, outstanding: 0)) { try pair.driver.nextCompletion() }
    }

    @Test func theRawLevelWritesWhatItIsTold() throws {
        var pair = try Pair(size: 4)
        pair.driver.write(Descriptor(address: 1, length: 2, flags: .next, next: 2), at: 0)
        pair.driver.write(Descriptor(address: 3, length: 4, flags: .deviceWrites), at: 2)
        pair.driver.writeAvailableEntry(0, at: 0)
        pair.driver.writeAvailableIndex(1)
        let next = pair.peer.nextHead()
        let chain = pair.peer.chain(at: try #require(next))
        #expect(
            chain == [
                Descriptor(address: 1, length: 2, flags: .next, next: 2),
                Descriptor(address: 3, length: 4, flags: .deviceWrites),
            ])
        #expect(pair.driver.outstanding == 0)
    }

    @Test func aPeerThatPollsIsNotKicked() throws {
        var pair = try Pair(size: 4)
        pair.offer(0)
        let kicked = pair.driver.kick()
        #expect(!kicked)
        let rang = pair.driver.endpoint.kick.clear()
        #expect(!rang)
    }

    @Test func waitingEndsWithTheInterrupt() throws {
        for usesEventIndex in [false, true] {
            var pair = try Pair(size: 4, usesEventIndex: usesEventIndex)
            pair.offer(0)
            let mustWait = pair.driver.requestInterrupt()
            #expect(mustWait)
            pair.peer.complete(id: 0, length: 0)
            pair.driver.endpoint.call.signal()
            let mustStillWait = pair.driver.requestInterrupt()
            #expect(!mustStillWait)
            let came = pair.driver.waitForCompletion(milliseconds: 10_000)
            #expect(came)
        }
    }
}
