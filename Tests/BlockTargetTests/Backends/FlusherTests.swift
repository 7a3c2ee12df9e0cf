import Glibc
import Platform
import SimulationKit
import TestSupport
import Testing
import Uring

@testable import BlockTarget

/// FLUSHes of a device in custody, which a thread of the worker carries out.
@Suite("FLUSH in a thread of its own")
struct FlusherTests {
    private func wait(_ flusher: Flusher, _ count: Int) throws -> [IOCompletion] {
        var done: [IOCompletion] = []
        while done.count < count {
            while let completion = flusher.nextCompletion() { done.append(completion) }
            if done.count == count { break }
            try #require(waitForInput(flusher.descriptor, milliseconds: 60_000))
        }
        #expect(flusher.nextCompletion() == nil)
        return done
    }

    @Test func `each that asks is answered, with what fdatasync says`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("data")
        try TestFile.create(path, count: 4096)
        let file = OwnedFD(owning: unsafe open(path, O_RDWR | O_CLOEXEC))
        let flusher = try Flusher(file.number, keepingOpen: nil, capacity: 64, loop: 0)
        for round in 0..<20 as Range<UInt64> {
            for index in 0..<64 as Range<UInt64> { flusher.ask(round << 8 | index) }
            let done = try wait(flusher, 64)
            #expect(done.map(\.token).sorted() == (0..<64 as Range<UInt64>).map { round << 8 | $0 })
            #expect(done.allSatisfy { $0.result == 0 })
        }
        let broken = try Flusher(-1, keepingOpen: nil, capacity: 4, loop: 1)
        broken.ask(7)
        let failed = try wait(broken, 1)
        #expect(failed.first?.token == 7)
        #expect(failed.first?.result == -EBADF)
    }

    @Test func `a guest's FLUSH and its durable writes go that way`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("data")
        try TestFile.create(path, count: Disks.bytes)
        let image = try DiskImage(path: path, readOnly: false, cache: .buffered)
        let flusher = try Flusher(image, capacity: 128, loop: 0)
        let backend = try FileBackend(image, engine: Ring(entries: 64, completions: 256), flusher: flusher)
        let bench = try Bench(backend, Disks.description(), writesThrough: true)
        #expect(try bench.perform(.flush).status == ok)
        #expect(try bench.perform(.write(sector: 8, [UInt8](repeating: 7, count: 4096))).status == ok)
        #expect(try bench.perform(.flush).status == ok)
        #expect(try TestFile.read(path, at: 4096, count: 4096) == [UInt8](repeating: 7, count: 4096))
    }
}
