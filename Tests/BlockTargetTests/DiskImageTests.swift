import BlockTarget
import Custody
import Glibc
import Platform
import TestSupport
import Testing

/// Opening an image: what is served, and what an operator reads when it is not.
@Suite("Disk image")
final class DiskImageTests {
    let directory: TemporaryDirectoryBox
    let path: String

    init() throws {
        directory = TemporaryDirectoryBox(try TemporaryDirectory())
        path = directory.value.file("image")
    }

    /// The sentence with which an image is refused; nil when it is opened.
    func refusal(_ path: String, readOnly: Bool = false, cache: CacheMode = .buffered) -> String? {
        do throws(SystemError) {
            _ = try DiskImage(path: path, readOnly: readOnly, cache: cache)
            return nil
        } catch {
            return error.description
        }
    }

    @Test("a file is served in whole sectors; what is behind the last is told", arguments: CacheMode.allCases)
    func wholeSectors(cache: CacheMode) throws {
        for (count, bytes, ignored) in [(512, 512, 0), (1023, 512, 511), (1 << 20, 1 << 20, 0), (4097, 4096, 1)] {
            try TestFile.create(path, count: count)
            let image = try DiskImage(path: path, readOnly: false, cache: cache)
            #expect(image.bytes == UInt64(bytes))
            #expect(image.ignoredBytes == UInt64(ignored))
            #expect(!image.isBlockDevice)
            #expect(image.physicalBlockSize >= 512 && image.physicalBlockSize.nonzeroBitCount == 1)
        }
    }

    @Test("a buffered image has no alignment and one open file, a direct one has both kinds")
    func access() throws {
        try TestFile.create(path, count: 4096)
        let buffered = try DiskImage(path: path, readOnly: false, cache: .buffered).access
        #expect(buffered.offsetAlignment == 1 && buffered.memoryAlignment == 1)
        #expect(buffered.file == buffered.unalignedFile)
        let direct = try DiskImage(path: path, readOnly: true, cache: .direct).access
        #expect(direct.offsetAlignment >= 512 && direct.offsetAlignment.nonzeroBitCount == 1)
        #expect(direct.memoryAlignment >= 1 && direct.memoryAlignment.nonzeroBitCount == 1)
        #expect(direct.file != direct.unalignedFile)
        #expect(direct.isReadOnly && !direct.isBlockDevice)
    }

    @Test("finding out whether holes can be punched changes nothing")
    func probing() throws {
        try TestFile.create(path, count: 5000)
        try TestFile.write(pattern(5000), to: path, at: 0)
        #expect(try DiskImage(path: path, readOnly: false, cache: .buffered).probeDiscard())
        #expect(try TestFile.read(path, count: 10_000) == pattern(5000))
        #expect(try !DiskImage(path: path, readOnly: true, cache: .buffered).probeDiscard())
    }

    @Test("what cannot be served is refused with a sentence that says what to do")
    func refusals() throws {
        #expect(refusal(path)?.contains("truncate -s") == true)
        try TestFile.create(path, count: 511)
        #expect(refusal(path)?.contains("511 bytes, less than a sector") == true)
        #expect(refusal(directory.value.path)?.contains("It is a directory") == true)
        let answer = refusal(directory.value.path, readOnly: true)
        #expect(answer?.contains("neither a regular file nor a block device") == true)
        #expect(refusal("/dev/null")?.contains("neither a regular file nor a block device") == true)
        #expect(refusal("\(path)/below")?.hasPrefix("cannot open the image \(path)/below: ") == true)
    }

    @Test("a file system without O_DIRECT is told apart")
    func withoutDirect() {
        // /proc has regular files that cannot be opened so.
        #expect(refusal("/proc/self/status", readOnly: true, cache: .direct)?.contains("--cache=buffered") == true)
    }

    @Test(
        arguments: [
            (0x6969, "NFS"), (0xff53_4d42, "SMB"), (0xfe53_4d42, "SMB"), (0x6573_5546, "FUSE"), (0x00c3_6400, "CephFS"),
            (0x0102_1997, "9p"),
        ] as [(UInt32, String)])
    func `locks that a server keeps are leases`(magic: UInt32, name: String) {
        #expect(LockWorth(fileSystemMagic: magic) == .lease(name))
    }

    /// ext4, XFS, Btrfs, tmpfs, overlayfs, GFS2, and one that nobody has heard of.
    @Test(
        arguments: [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x0116_1970, 0x1234_5678] as [UInt32])
    func `locks that this kernel keeps are fences`(magic: UInt32) {
        #expect(LockWorth(fileSystemMagic: magic) == .fence)
    }
}
