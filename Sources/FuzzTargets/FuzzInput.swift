/// A fuzzer's bytes, taken piece by piece from the front. Past the end there are zeros, so every input means something.
struct FuzzInput {
    private let bytes: [UInt8]
    private var place = 0

    init(_ bytes: Span<UInt8>) {
        self.bytes = bytes.indices.map { bytes[$0] }
    }

    var isEmpty: Bool { place >= bytes.count }

    mutating func nextByte() -> UInt8 {
        guard place < bytes.count else { return 0 }
        defer { place += 1 }
        return bytes[place]
    }

    /// As many of the next bytes as there are, at most `count`.
    mutating func next(_ count: Int) -> [UInt8] {
        let end = min(place + count, bytes.count)
        defer { place = end }
        return Array(bytes[place..<end])
    }
}
