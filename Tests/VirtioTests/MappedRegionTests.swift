import Glibc
import Platform
import TestSupport
import Testing
import Virtio

@Suite("Mapping a region")
struct MappedRegionTests {
    static let page: UInt64 = 4096

    /// What becomes of a region with these numbers in a file of three pages and 100 bytes: nil when it is mapped.
    func error(size: UInt64, offset: UInt64) throws -> Errno? {
        let file = try makeMemoryFile(name: "region", count: 3 * 4096 + 100)
        let region = MemoryRegion(guestAddress: 0x1000, size: size, frontendAddress: 0, fileOffset: offset)
        do throws(Errno) {
            _ = try MappedRegion(region, fd: file)
            return nil
        } catch {
            return error
        }
    }

    @Test("neither size nor offset need be a multiple of the page")
    func oddNumbers() throws {
        for (size, offset) in [(1, 0), (0x762, 0), (4097, 0), (12388, 0), (100, 12288), (1, 12387), (5000, 4095)] {
            #expect(try error(size: UInt64(size), offset: UInt64(offset)) == nil, "\(size) at \(offset)")
        }
    }

    @Test("a region longer than its file is refused: its pages would kill us")
    func longerThanItsFile() throws {
        for (size, offset) in [(12389, 0), (1, 12388), (4096, 12288), (1 << 40, 0), (1, 1 << 40)] {
            #expect(try error(size: UInt64(size), offset: UInt64(offset)) == .invalidArgument, "\(size) at \(offset)")
        }
    }

    @Test("an empty region and numbers that overflow are refused")
    func nonsense() throws {
        #expect(try error(size: 0, offset: 0) == .invalidArgument)
        #expect(try error(size: .max, offset: 0) == .invalidArgument)
        #expect(try error(size: .max, offset: 1) == .invalidArgument)
        #expect(try error(size: 1, offset: .max) == .invalidArgument)
        #expect(try error(size: 1 << 63, offset: 0) == .invalidArgument)
        #expect(try error(size: 1, offset: 1 << 63) == .invalidArgument)
    }

    @Test("a file whose file system talks of huge blocks is mapped as far as it goes, and can be pinned")
    func hugeBlocks() throws {
        let directory = try TemporaryDirectory()
        let mount = directory.file("huge")
        try #require(try run("mkdir", [mount], in: directory).code == 0)
        try #require(try run("mount", ["-t", "tmpfs", "-o", "huge=always", "tmpfs", mount], in: directory).code == 0)
        defer { _ = try? run("umount", ["-l", mount], in: directory) }
        let path = "\(mount)/file"
        try TestFile.create(path, count: 3 * 4096 + 100)
        let file = OwnedFD(owning: try retryingInterrupts { unsafe open(path, O_RDWR | O_CLOEXEC) })
        let region = MemoryRegion(guestAddress: 0, size: 8192 + 100, frontendAddress: 0, fileOffset: 4096)
        _ = try MappedRegion(region, fd: file, pinned: true)
    }
}
