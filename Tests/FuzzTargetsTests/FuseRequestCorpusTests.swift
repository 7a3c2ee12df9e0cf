import FuzzTargets
import Testing

/// The FUSE request fuzzer's committed inputs, whole and cut off, and some that chance makes.
@Suite struct FuseRequestCorpusTests {
    @Test func `fuse-request: every input of the corpus holds`() throws {
        let corpus = try readCorpus("fuse-request")
        #expect(corpus.count >= 5)
        for (_, bytes) in corpus { fuzzFuseRequest(bytes.span) }
    }

    @Test func `fuse-request: every input cut off holds`() throws {
        for (_, bytes) in try readCorpus("fuse-request") {
            for count in stride(from: 0, to: bytes.count, by: 17) { fuzzFuseRequest(Array(bytes.prefix(count)).span) }
        }
    }

    @Test(arguments: [UInt64(1), 2, 3, 4])
    func `fuse-request: inputs made by chance hold`(seed: UInt64) {
        var chance = SeededGenerator(seed: seed)
        for _ in 0..<100 {
            let count = Int.random(in: 0...900, using: &chance)
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &chance) }
            fuzzFuseRequest(bytes.span)
        }
    }
}
