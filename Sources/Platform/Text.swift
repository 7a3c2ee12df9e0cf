internal import Glibc

/// Writes text to a descriptor in one call, so that lines of several processes do not mix; what cannot be written is
/// lost.
public func printText(_ text: String, to number: Int32) {
    var text = text
    text.withUTF8 { bytes in
        _ = unsafe write(number, bytes.baseAddress, bytes.count)
    }
}

/// Reads a file of at most 4096 bytes, such as those of /proc and /sys, without the line feed at its end.
///
/// - Returns: nil when it cannot be read.
public func readSmallFile(_ path: String) -> String? {
    guard let number = try? retryingInterrupts({ unsafe open(path, O_RDONLY | O_CLOEXEC) }) else { return nil }
    let fd = OwnedFD(owning: number)
    return unsafe withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
        guard let count = try? retryingInterrupts({ unsafe read(fd.number, buffer.baseAddress, buffer.count) })
        else { return nil }
        let text = unsafe String(decoding: buffer.prefix(count), as: UTF8.self)
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }
}

/// Reads a file whose length is not known beforehand, such as the larger ones of /proc.
///
/// - Parameter limit: the most that is read, in bytes.
/// - Returns: nil when it cannot be read.
public func readFile(_ path: String, limit: Int) -> String? {
    guard let number = try? retryingInterrupts({ unsafe open(path, O_RDONLY | O_CLOEXEC) }) else { return nil }
    let fd = OwnedFD(owning: number)
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    while bytes.count < limit {
        let count = unsafe piece.withUnsafeMutableBytes { buffer in
            try? retryingInterrupts { unsafe read(fd.number, buffer.baseAddress, buffer.count) }
        }
        guard let count else { return nil }
        if count == 0 { break }
        bytes += piece[..<min(count, limit - bytes.count)]
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// The names of what a directory holds, "." and ".." left out; none when it cannot be read.
public func directoryNames(_ path: String) -> [String] {
    guard let stream = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(stream) }
    var names: [String] = []
    while let entry = unsafe readdir(stream) {
        let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { tuple in
            unsafe tuple.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}
