import FuzzTargets
import Testing

/// The block request fuzzer's committed inputs, whole and cut off, and some that chance makes.
@Suite struct BlockRequestCorpusTests {
    @Test func `block-request: every input of the corpus holds`() throws {
        let corpus = try readCorpus("block-request")
        #expect(corpus.count >= 11)
        // The first byte says what ring it is.
        #expect(corpus.count { $0.bytes[0] & 32 != 0 } >= 6, "packed rings")
        #expect(corpus.count { $0.bytes[0] & 32 == 0 } >= 5, "split rings")
        for (_, bytes) in corpus { fuzzBlockRequest(bytes.span) }
    }

    @Test func `block-request: every input cut off holds`() throws {
        for (_, bytes) in try readCorpus("block-request") {
            for count in stride(from: 0, to: bytes.count, by: 17) { fuzzBlockRequest(Array(bytes.prefix(count)).span) }
        }
    }

    @Test(arguments: [UInt64(1), 2, 3, 4])
    func `block-request: inputs made by chance hold`(seed: UInt64) {
        var chance = SeededGenerator(seed: seed)
        for _ in 0..<100 {
            let count = Int.random(in: 0...900, using: &chance)
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &chance) }
            fuzzBlockRequest(bytes.span)
        }
    }
}
