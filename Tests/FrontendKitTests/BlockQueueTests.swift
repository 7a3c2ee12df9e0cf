import FrontendKit
import Testing

/// The fast level against a device that touches what it should not.
@Suite struct BlockQueueTests {
    struct Pair: ~Copyable {
        let memory: GuestMemory
        var queue: BlockQueue
        var peer: LoopbackPeer

        init(_ layout: BlockQueue.ChainLayout, maximumPieces: Int = 3) throws {
            let memory = try GuestMemory(size: 1 << 20)
            var allocator = GuestAllocator(memory.regions[0])
            let endpoint = try QueueEndpoint(memory: memory, ring: SplitRing(size: 64, in: &allocator))
            let driver = DriverQueue(endpoint, usesEventIndex: false)
            self.memory = memory
            queue = BlockQueue(driver, depth: 8, layout: layout, maximumPieces: maximumPieces, in: &allocator)
            peer = LoopbackPeer(endpoint)
        }

        /// Submits a request and returns what the device sees of it.
        mutating func submit(_ request: BlockRequest) throws -> (head: UInt16, chain: [Descriptor]) {
            queue.submit(request)
            queue.publish()
            let next = peer.nextHead()
            let head = try #require(next)
            return (head, peer.chain(at: head))
        }
    }

    static let read = BlockRequest(.read, sector: 9, dataAddress: 0x8_0000, dataLength: 1000, pieces: 3, token: 77)

    @Test(arguments: BlockQueue.ChainLayout.allCases)
    func laysOutHeaderDataAndStatus(layout: BlockQueue.ChainLayout) throws {
        var pair = try Pair(layout)
        let (head, chain) = try pair.submit(Self.read)
        #expect(chain.map(\.length) == [16, 333, 333, 334, 1])
        #expect(chain.map { $0.flags.contains(.deviceWrites) } == [false, true, true, true, true])
        #expect(chain[1].address == 0x8_0000)
        #expect(chain[3].address == 0x8_0000 + 666)
        let header = pair.memory.read(16, at: chain[0].address)
        #expect(header == [0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0])
        pair.memory.write([0], at: chain[4].address)
        pair.peer.complete(id: UInt32(head), length: 1001)
        let completion = try #require(try pair.queue.nextCompletion())
        #expect(completion.status == .ok)
        #expect(completion.token == 77)
        #expect(completion.usedLength == 1001)
        #expect(pair.queue.outstanding == 0)
    }

    @Test(arguments: BlockQueue.ChainLayout.allCases)
    func aFlushHasNoData(layout: BlockQueue.ChainLayout) throws {
        var pair = try Pair(layout)
        #expect(try pair.submit(BlockRequest(.flush)).chain.map(\.length) == [16, 1])
    }

    @Test func dataToWriteIsReadOnly() throws {
        var pair = try Pair(.direct)
        let request = BlockRequest(.write, sector: 0, dataAddress: 0x8_0000, dataLength: 512)
        #expect(try pair.submit(request).chain.map { $0.flags.contains(.deviceWrites) } == [false, false, true])
    }

    @Test func aMissingStatusIsNoticed() throws {
        var pair = try Pair(.direct)
        let (head, _) = try pair.submit(Self.read)
        pair.peer.complete(id: UInt32(head), length: 1001)
        #expect(throws: QueueViolation.statusNotWritten(kind: .read, sector: 9)) { try pair.queue.nextCompletion() }
    }

    @Test func aLengthBeyondTheBuffersIsNoticed() throws {
        var pair = try Pair(.direct)
        let (head, chain) = try pair.submit(Self.read)
        pair.memory.write([0], at: chain[4].address)
        pair.peer.complete(id: UInt32(head), length: 1002)
        #expect(throws: QueueViolation.usedLengthTooLarge(1002, writable: 1001)) { try pair.queue.nextCompletion() }
    }

    @Test(arguments: [-1, 1])
    func aByteBesideTheStatusIsNoticed(offset: Int) throws {
        var pair = try Pair(.direct)
        let (head, chain) = try pair.submit(Self.read)
        pair.memory.write([0], at: chain[4].address)
        let beside = offset > 0 ? chain[4].address + 1 : chain[0].address + 8
        pair.memory.write([0], at: beside)
        pair.peer.complete(id: UInt32(head), length: 1001)
        #expect(throws: QueueViolation.wroteOutside(kind: .read, sector: 9)) { try pair.queue.nextCompletion() }
    }

    @Test(arguments: BlockQueue.ChainLayout.allCases)
    func theIdealPeerAnswersEverything(layout: BlockQueue.ChainLayout) throws {
        var pair = try Pair(layout)
        for _ in 0..<1000 {
            while pair.queue.hasRoom { pair.queue.submit(Self.read) }
            pair.queue.publish()
            #expect(pair.peer.answerAll() == 8)
            while let completion = try pair.queue.nextCompletion() { #expect(completion.status == .ok) }
        }
    }
}
