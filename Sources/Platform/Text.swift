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
