internal import Glibc
internal import Platform

/// Names of stored files, in a file in memory that is stored with them.
///
/// Layout, in host order: entries of 256 bytes: age (8 bytes), number of the stored file (4), length of the name (2),
/// name. An entry that means nothing has length 0.
final class NameTable {
    let file: SharedFD
    private var lastAge: UInt64 = 0

    struct Entry {
        /// Of the entry.
        var number: Int
        var name: String
        /// The number of the stored file.
        var place: Int
        var age: UInt64
    }

    private static let entryBytes = 256
    private static let headBytes = 14

    init() throws(Errno) {
        file = SharedFD(try makeMemoryFile(name: "baton-names", count: SystemdStore.capacity * Self.entryBytes))
    }

    /// - Parameter file: what a supervisor before has written.
    init(_ file: SharedFD) { self.file = file }

    /// All entries that mean something; to be called once, before anything is set.
    func load() -> [Entry] {
        let entries = (0..<SystemdStore.capacity).compactMap { entry($0) }
        lastAge = entries.map(\.age).max() ?? 0
        return entries
    }

    /// - Returns: whether it was written.
    func set(_ number: Int, _ name: String, _ place: Int) -> Bool {
        let text = Array(name.utf8)
        guard text.count <= Self.entryBytes - Self.headBytes else { return false }
        lastAge += 1
        let head = bytes(lastAge, 8) + bytes(UInt64(place), 4) + bytes(UInt64(text.count), 2)
        return write(head + text, at: number * Self.entryBytes)
    }

    func clear(_ number: Int) { _ = write([0, 0], at: number * Self.entryBytes + 12) }

    private func entry(_ number: Int) -> Entry? {
        var bytes = [UInt8](repeating: 0, count: Self.entryBytes)
        let offset = off_t(number * Self.entryBytes)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe pread(file.number, $0.baseAddress, $0.count, offset) }
        let length = Int(value(bytes[12..<14]))
        guard count == Self.entryBytes, length > 0, length <= Self.entryBytes - Self.headBytes,
            let name = String(validating: bytes[Self.headBytes..<Self.headBytes + length], as: UTF8.self)
        else { return nil }
        return Entry(number: number, name: name, place: Int(value(bytes[8..<12])), age: value(bytes[..<8]))
    }

    private func bytes(_ value: UInt64, _ count: UInt64) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    private func value(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }

    private func write(_ bytes: [UInt8], at offset: Int) -> Bool {
        unsafe bytes.withUnsafeBytes { unsafe pwrite(file.number, $0.baseAddress, $0.count, off_t(offset)) == $0.count }
    }
}

/// Numbers from 0 on, each given to one user at a time.
struct Numbers {
    private var free: [Int] = []
    private var next = 0
    private let limit: Int

    /// - Parameter limit: how many there are.
    init(limit: Int) { self.limit = limit }

    /// These are in use; no others are.
    mutating func setUsed(_ used: Set<Int>) {
        next = (used.max() ?? -1) + 1
        free = (0..<next).filter { !used.contains($0) }
    }

    /// nil: all are in use.
    mutating func take() -> Int? {
        if let number = free.popLast() { return number }
        guard next < limit else { return nil }
        next += 1
        return next - 1
    }

    mutating func giveBack(_ number: Int) { free.append(number) }
}
