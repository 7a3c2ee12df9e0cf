import FuzzTargets
import Glibc
import Testing

/// What the fuzzers run, without a fuzzer: every committed input, and some that grow from them by chance.
@Suite struct CorpusTests {
    @Test func `vhost-user: every input of the corpus holds`() throws {
        let corpus = try readCorpus("vhost-user")
        #expect(corpus.count >= 8)
        for (_, bytes) in corpus { fuzzVhostUser(bytes.span) }
    }

    @Test func `vhost-user: every input cut off anywhere holds`() throws {
        for (_, bytes) in try readCorpus("vhost-user") {
            for count in 0..<bytes.count { fuzzVhostUser(Array(bytes.prefix(count)).span) }
        }
    }

    @Test(arguments: [UInt64(1), 2, 3])
    func `vhost-user: inputs that are put together by chance hold`(seed: UInt64) throws {
        var chance = SeededGenerator(seed: seed)
        let corpus = try readCorpus("vhost-user").map(\.bytes)
        for _ in 0..<500 {
            var bytes: [UInt8] = []
            for _ in 0..<3 {
                let source = corpus.randomElement(using: &chance) ?? []
                let start = Int.random(in: 0...source.count, using: &chance)
                bytes += Bool.random(using: &chance) ? source[start...] : source[..<start]
            }
            for _ in 0..<Int.random(in: 0...8, using: &chance) where !bytes.isEmpty {
                bytes[Int.random(in: bytes.indices, using: &chance)] = UInt8.random(in: 0...255, using: &chance)
            }
            fuzzVhostUser(bytes.span)
        }
    }
}

/// SplitMix64: the same numbers for the same seed, on every machine.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

/// The committed inputs of a fuzz target, in the order of their names.
func readCorpus(_ target: String, file: String = #filePath) throws -> [(name: String, bytes: [UInt8])] {
    let root = file.split(separator: "/").dropLast(3).joined(separator: "/")
    let folder = "/\(root)/Fuzz/Corpus/\(target)"
    guard let directory = unsafe opendir(folder) else { throw NotReadable(path: folder) }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
        let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        if !name.hasPrefix(".") { names.append(name) }
    }
    return try names.sorted().map { ($0, try readFile("\(folder)/\($0)")) }
}

private struct NotReadable: Error {
    let path: String
}

private func readFile(_ path: String) throws -> [UInt8] {
    guard let file = unsafe fopen(path, "r") else { throw NotReadable(path: path) }
    defer { unsafe fclose(file) }
    var bytes: [UInt8] = []
    while case let byte = unsafe fgetc(file), byte != EOF { bytes.append(UInt8(byte)) }
    return bytes
}
