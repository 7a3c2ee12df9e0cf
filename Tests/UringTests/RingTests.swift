import CLinux
import Glibc
import Platform
import TestSupport
import Testing

@testable import Uring

/// The real ring, on real files.
@Suite("Ring")
final class RingTests {
    let directory: TemporaryDirectoryBox
    let file: OwnedFD
    let path: String

    static let content = (0..<65536).map { UInt8(truncatingIfNeeded: $0 ^ $0 >> 8) }

    init() throws {
        directory = TemporaryDirectoryBox(try TemporaryDirectory())
        path = directory.value.file("file")
        try TestFile.create(path, count: Self.content.count)
        try TestFile.write(Self.content, to: path, at: 0)
        let path = path
        file = OwnedFD(owning: try retryingInterrupts { unsafe open(path, O_RDWR | O_CLOEXEC) })
    }

    /// Waits for one completion, and lets go of it.
    static func next(_ ring: inout Ring) throws -> IOCompletion {
        for _ in 0..<1000 {
            ring.runDeferredWork()
            if let completion = ring.nextCompletion() {
                ring.releaseCompletions()
                return completion
            }
            guard let descriptor = ring.pollDescriptor, waitForInput(descriptor, milliseconds: 10_000) else { break }
        }
        throw Errno.timedOut
    }

    /// Runs one operation to its end.
    static func run(_ operation: IOOperation, on ring: inout Ring) throws -> Int32 {
        let queued = ring.enqueue(operation, token: 0x0123_4567_89ab_cdef)
        #expect(queued)
        ring.submit()
        let completion = try next(&ring)
        #expect(completion.token == 0x0123_4567_89ab_cdef)
        return completion.result
    }

    @Test("files that the ring keeps open itself serve like others, and beside others")
    func registeredFiles() throws {
        var ring = try Ring(entries: 4, completions: 8)
        let path = path
        let other = OwnedFD(owning: try retryingInterrupts { unsafe open(path, O_RDWR | O_CLOEXEC) })
        ring.keepOpen(file.number, other.number)
        let third = OwnedFD(owning: try retryingInterrupts { unsafe open(path, O_RDWR | O_CLOEXEC) })
        for number in [file.number, other.number, third.number] {
            let buffer = TestBuffer(4096)
            let read = unsafe IOOperation.read(file: number, buffer: buffer.base, count: 4096, offset: 512)
            #expect(try Self.run(read, on: &ring) == 4096)
            #expect(buffer.bytes == Array(Self.content[512..<4608]))
        }
        #expect(try Self.run(.synchronizeData(file: file.number), on: &ring) == 0)
    }

    @Test("reads and writes one buffer")
    func oneBuffer() throws {
        var ring = try Ring(entries: 4, completions: 8)
        let buffer = TestBuffer(4096)
        #expect(
            try Self.run(unsafe .read(file: file.number, buffer: buffer.base, count: 1000, offset: 500), on: &ring)
                == 1000)
        #expect(buffer.bytes.prefix(1000) == Self.content[500..<1500])
        #expect(buffer.bytes.dropFirst(1000).allSatisfy { $0 == 0 })
        buffer.fill(0x77)
        for durable in [false, true] {
            let write = unsafe IOOperation.write(
                file: file.number, buffer: buffer.base, count: 4096, offset: 8192, durable: durable)
            #expect(try Self.run(write, on: &ring) == 4096)
        }
        #expect(try TestFile.read(path, at: 8192, count: 4096) == buffer.bytes)
        #expect(try TestFile.read(path, at: 12288, count: 16) == Array(Self.content[12288..<12304]))
    }

    @Test("reads and writes vectors; the table is free again after the submit", arguments: [1, 2, 7])
    func vectors(count: Int) throws {
        var ring = try Ring(entries: 4, completions: 8)
        let buffer = TestBuffer(count * 100)
        let table = TestVectors(buffer, pieces: count)
        let read = unsafe IOOperation.read(file: file.number, vectors: table.base, count: count, offset: 3)
        let queued = ring.enqueue(read, token: 1)
        #expect(queued)
        ring.submit()
        table.spoil()
        let completion = try Self.next(&ring)
        #expect(completion.result == Int32(100 * count))
        #expect(buffer.bytes == Array(Self.content[3..<3 + 100 * count]))
        let again = TestVectors(buffer, pieces: count)
        let write = unsafe IOOperation.write(
            file: file.number, vectors: again.base, count: count, offset: 20_000, durable: true)
        #expect(try Self.run(write, on: &ring) == Int32(100 * count))
        #expect(try TestFile.read(path, at: 20_000, count: 100 * count) == buffer.bytes)
    }

    @Test("synchronises, punches holes and zeroes ranges")
    func rareOperations() throws {
        var ring = try Ring(entries: 4, completions: 8)
        #expect(try Self.run(.synchronizeData(file: file.number), on: &ring) == 0)
        let keep = FALLOC_FL_KEEP_SIZE
        let punch = IOOperation.allocate(
            file: file.number, mode: FALLOC_FL_PUNCH_HOLE | keep, offset: 4096, length: 8192)
        #expect(try Self.run(punch, on: &ring) == 0)
        let bytes = try TestFile.read(path, count: Self.content.count)
        #expect(bytes[4096..<12288].allSatisfy { $0 == 0 })
        #expect(bytes[..<4096] == Self.content[..<4096] && bytes[12288...] == Self.content[12288...])
        let zero = IOOperation.allocate(
            file: file.number, mode: FALLOC_FL_ZERO_RANGE | keep, offset: 20_480, length: 4096)
        let result = try Self.run(zero, on: &ring)
        #expect(result == 0 || result == -EOPNOTSUPP, "not every file system can")
        let discard = IOOperation.discardDevice(file: file.number, offset: 0, length: 4096)
        #expect(try Self.run(discard, on: &ring) < 0, "a file is no device")
        #expect(try TestFile.read(path, count: 4096) == Array(Self.content[..<4096]))
    }

    @Test("errors are results: the ring throws nothing")
    func errors() throws {
        var ring = try Ring(entries: 4, completions: 8)
        let buffer = TestBuffer(512)
        #expect(try Self.run(unsafe .read(file: -1, buffer: buffer.base, count: 512, offset: 0), on: &ring) == -EBADF)
        #expect(try Self.run(.synchronizeData(file: -1), on: &ring) == -EBADF)
        let end = unsafe IOOperation.read(file: file.number, buffer: buffer.base, count: 512, offset: 65536 - 100)
        #expect(try Self.run(end, on: &ring) == 100)
        let behind = unsafe IOOperation.read(file: file.number, buffer: buffer.base, count: 512, offset: 1 << 40)
        #expect(try Self.run(behind, on: &ring) == 0)
    }

    @Test("a full queue refuses, and takes again after a submit")
    func fullQueue() throws {
        var ring = try Ring(entries: 4, completions: 64)
        #expect(ring.queuedCount == 0)
        for token in 0..<4 {
            let queued = ring.enqueue(.synchronizeData(file: file.number), token: UInt64(token))
            #expect(queued)
        }
        let refused = ring.enqueue(.synchronizeData(file: file.number), token: 4)
        #expect(!refused)
        #expect(ring.queuedCount == 4)
        ring.submit()
        #expect(ring.queuedCount == 0)
        let queued = ring.enqueue(.synchronizeData(file: file.number), token: 4)
        #expect(queued)
        ring.submit()
        var tokens: Set<UInt64> = []
        for _ in 0..<5 { tokens.insert(try Self.next(&ring).token) }
        #expect(tokens == [0, 1, 2, 3, 4])
        let more = ring.nextCompletion() != nil
        #expect(!more)
    }

    @Test("more operations than the ring has places, each completed once with its own result")
    func manyOperations() throws {
        var ring = try Ring(entries: 8, completions: 16)
        let buffer = TestBuffer(2000)
        var outstanding = 0
        var completed = [Int](repeating: 0, count: 2000)
        func take(_ ring: inout Ring) throws {
            let completion = try Self.next(&ring)
            completed[Int(completion.token)] += 1
            #expect(completion.result == 1)
            outstanding -= 1
        }
        for token in 0..<2000 {
            while outstanding >= 16 { try take(&ring) }
            let read = unsafe IOOperation.read(
                file: file.number, buffer: buffer.base + token, count: 1, offset: UInt64(token))
            if !ring.enqueue(read, token: UInt64(token)) {
                ring.submit()
                let queued = ring.enqueue(read, token: UInt64(token))
                #expect(queued)
            }
            outstanding += 1
        }
        ring.submit()
        while outstanding > 0 { try take(&ring) }
        #expect(completed.allSatisfy { $0 == 1 })
        #expect(buffer.bytes == Array(Self.content[..<2000]))
    }

    @Test("completions that nobody takes are kept, more than the ring has room for")
    func overflow() throws {
        var ring = try Ring(entries: 8, completions: 8)
        for batch in 0..<8 {
            for index in 0..<8 {
                let queued = ring.enqueue(.synchronizeData(file: -1), token: UInt64(8 * batch + index))
                #expect(queued)
            }
            ring.submit()
        }
        var tokens: Set<UInt64> = []
        for _ in 0..<64 {
            if ring.queuedCount > 0 { ring.submit() }
            tokens.insert(try Self.next(&ring).token)
        }
        #expect(tokens.count == 64)
    }

    @Test("the poll descriptor wakes a sleeper when a completion comes, and not before")
    func wakes() throws {
        var ring = try Ring(entries: 4, completions: 8)
        let descriptor = ring.pollDescriptor ?? -1
        #expect(!waitForInput(descriptor, milliseconds: 0))
        // A read that waits until somebody writes.
        let pair = try UnixStreamPair()
        let buffer = TestBuffer(16)
        let queued = ring.enqueue(
            unsafe .read(file: pair.first.fd.number, buffer: buffer.base, count: 16, offset: 0), token: 7)
        #expect(queued)
        ring.submit()
        #expect(!waitForInput(descriptor, milliseconds: 0))
        var bytes: [UInt8] = [1, 2, 3]
        let written = unsafe write(pair.second.fd.number, &bytes, 3)
        #expect(written == 3)
        #expect(waitForInput(descriptor, milliseconds: 10_000))
        let completion = try Self.next(&ring)
        #expect(completion.token == 7 && completion.result == 3)
        #expect(!waitForInput(descriptor, milliseconds: 0))
    }

    // MARK: Set-up

    @Test(
        "a machine that gives no ring says why, and what to do",
        arguments: [
            (ENOSYS, "no io_uring"), (EPERM, "kernel.io_uring_disabled"), (EACCES, "kernel.io_uring_disabled"),
            (EINVAL, "6.1 or newer"), (ENOMEM, "ulimit -l"),
        ])
    func advice(number: Int32, words: String) {
        let error = Ring.explain(Errno(rawValue: number))
        #expect(error.description.hasPrefix("cannot set up io_uring: "), "\(error)")
        #expect(error.advice.contains(words), "\(error)")
        #expect(error.errno == Errno(rawValue: number))
    }

    @Test("sizes that no kernel gives are refused with a sentence", arguments: [0, 1 << 20])
    func impossibleSizes(entries: UInt32) {
        do throws(SystemError) {
            _ = try Ring(entries: entries, completions: entries)
            Issue.record("a ring of \(entries) entries")
        } catch {
            #expect(error.description.contains("io_uring"))
        }
    }
}
