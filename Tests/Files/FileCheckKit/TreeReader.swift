internal import CFileCalls
internal import Glibc
public import Platform
internal import TestSupport

/// Everything that is in a directory of the host, in words that are the same for the same tree.
public enum TreeReader {
    /// One line for each name, in order: its type, mode, owner, links, size, device, time where one was set, extended
    /// attributes, content or target, and the first other name of the same file.
    public static func lines(_ root: String) throws(SystemError) -> [String] {
        var first: [UInt64: String] = [:]
        var lines: [String] = []
        var rest = [""]
        while let path = rest.popLast() {
            let full = path.isEmpty ? root : "\(root)/\(path)"
            var status = file_status()
            guard unsafe file_status_at(AT_FDCWD, full, &status) == 0 else {
                throw SystemError(cannot: "look at", full, .current)
            }
            let type = status.mode & S_IFMT
            if type == S_IFDIR {
                rest += TestFile.names(in: full).sorted(by: >).map { path.isEmpty ? $0 : "\(path)/\($0)" }
            } else if status.links > 1, let other = first[status.inode] {
                lines.append("\(path): the same as \(other)")
                continue
            } else {
                first[status.inode] = path
            }
            lines.append("\(path): \(try describe(status, full))")
        }
        return lines
    }

    private static func describe(_ status: file_status, _ path: String) throws(SystemError) -> String {
        let type = status.mode & S_IFMT
        let time = comparable(status.modified, status.modified_nanoseconds)
        var parts = [
            "mode \(String(status.mode, radix: 8))", "links \(status.links)", "owner \(status.user):\(status.group)",
            "device \(status.major):\(status.minor)", time[0] == .max ? "changed" : "time \(time)",
        ]
        if type != S_IFDIR { parts.append("size \(status.size)") }
        if type == S_IFREG { parts.append("content \(try content(path))") }
        if type == S_IFLNK { parts.append("target \(String(decoding: target(path), as: UTF8.self))") }
        for name in attributeNames(path) { parts.append("\(name) = \(hash(value(path, name)))") }
        return parts.joined(separator: ", ")
    }

    /// A number for what is in a file, from the blocks that are not all zeros, and where they are.
    private static func content(_ path: String) throws(SystemError) -> String {
        let number = unsafe file_open(AT_FDCWD, path, O_RDONLY, 0)
        guard number >= 0 else { throw SystemError(cannot: "open", path, .current) }
        let file = OwnedFD(owning: number)
        var sum: UInt64 = 14_695_981_039_346_656_037
        var bytes = [UInt8](repeating: 0, count: 4096)
        var offset: Int64 = 0
        while true {
            // SEEK_DATA; there is none behind the last.
            let data = file_seek(file.number, offset, 3)
            guard data >= 0 else { break }
            offset = data & ~4095
            let count = unsafe bytes.withUnsafeMutableBytes {
                unsafe pread(file.number, $0.baseAddress, 4096, off_t(offset))
            }
            guard count >= 0 else { throw SystemError(cannot: "read", path, .current) }
            if bytes[..<count].contains(where: { $0 != 0 }) {
                for byte in bytes[..<count] { sum = (sum ^ UInt64(byte)) &* 1_099_511_628_211 }
                sum = (sum ^ UInt64(offset)) &* 1_099_511_628_211
            }
            offset += 4096
        }
        return String(sum, radix: 16)
    }

    private static func target(_ path: String) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = unsafe bytes.withUnsafeMutableBytes {
            unsafe readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        }
        return Array(bytes[..<max(0, count)])
    }

    private static func attributeNames(_ path: String) -> [String] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = unsafe bytes.withUnsafeMutableBytes {
            unsafe llistxattr(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        }
        return bytes[..<max(0, count)].split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.sorted()
    }

    private static func value(_ path: String, _ name: String) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe lgetxattr(path, name, $0.baseAddress, $0.count) }
        return Array(bytes[..<max(0, count)])
    }

    private static func hash(_ bytes: [UInt8]) -> String {
        String(
            bytes.reduce(14_695_981_039_346_656_037 as UInt64) { ($0 ^ UInt64($1)) &* 1_099_511_628_211 }, radix: 16)
    }
}
