internal import Glibc
internal import Platform

/// A device's state in a file in memory, for the supervisor's successor: two areas, and a number that says which one
/// counts. A death before the number is written leaves the old state, after it the new.
///
/// Layout, in host order: number of the commit (8 bytes), then two areas of `areaBytes`, each with its length (8 bytes)
/// first. Bit 0 of the number names the area.
final class StateFile {
    let file: SharedFD
    private var number: UInt64

    private static let areaBytes = 1 << 20
    private static let headerBytes = 4096

    /// - Throws: when there is no memory.
    init() throws(Errno) {
        file = SharedFD(
            try makeMemoryFile(name: "baton-state", count: Self.headerBytes + 2 * Self.areaBytes))
        number = 0
    }

    /// - Parameter file: what a supervisor before has written.
    init(_ file: SharedFD) {
        self.file = file
        number = 0
        if let bytes = read(8, at: 0) { number = Self.number(bytes) }
    }

    private static func number(_ bytes: [UInt8]) -> UInt64 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private static func bytes(_ number: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: number >> UInt64(8 * $0)) }
    }

    private static func offset(_ number: UInt64) -> Int { headerBytes + Int(number & 1) * areaBytes }

    /// Replaces the state. One that is too long is not written: the old stays.
    func commit(_ state: [UInt8]) {
        guard state.count <= Self.areaBytes - 8 else { return }
        let next = number &+ 1
        let place = Self.offset(next)
        guard write(Self.bytes(UInt64(state.count)) + state, at: place), write(Self.bytes(next), at: 0) else { return }
        number = next
    }

    /// What was committed last; nil when nothing was.
    func load() -> [UInt8]? {
        guard number > 0, let length = read(8, at: Self.offset(number)) else { return nil }
        let count = Self.number(length)
        guard count <= UInt64(Self.areaBytes - 8) else { return nil }
        return read(Int(count), at: Self.offset(number) + 8)
    }

    private func write(_ bytes: [UInt8], at offset: Int) -> Bool {
        unsafe bytes.withUnsafeBytes { raw in
            unsafe pwrite(file.number, raw.baseAddress, raw.count, off_t(offset)) == raw.count
        }
    }

    private func read(_ count: Int, at offset: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        let result = unsafe bytes.withUnsafeMutableBytes { raw in
            unsafe pread(file.number, raw.baseAddress, raw.count, off_t(offset))
        }
        return result == count ? bytes : nil
    }
}
