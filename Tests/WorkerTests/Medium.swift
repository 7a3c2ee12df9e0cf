import FrontendKit
import Platform
import TestSupport
import Testing

/// What a worker serves on, as its command line says it.
enum Medium: String, CaseIterable, CustomTestStringConvertible {
    case directFile, bufferedFile, memory, loopDevice512, loopDevice4096

    var testDescription: String { rawValue }

    static let diskBytes = 32 << 20

    /// Options for a worker on it, made for one test.
    func storage(in directory: borrowing TemporaryDirectory) throws -> (options: [String], device: LoopDevice?) {
        let image = directory.file("disk.img")
        switch self {
        case .memory: return (["--backend=memory", "--size=\(Self.diskBytes)"], nil)
        case .directFile, .bufferedFile:
            try TestFile.create(image, count: Self.diskBytes)
            return (["--blk-file=\(image)", "--cache=\(self == .directFile ? "direct" : "buffered")"], nil)
        case .loopDevice512, .loopDevice4096:
            try TestFile.create(image, count: Self.diskBytes)
            let device = try LoopDevice(image, sectorSize: self == .loopDevice512 ? 512 : 4096, in: directory)
            return (["--blk-file=\(device.path)"], device)
        }
    }
}
