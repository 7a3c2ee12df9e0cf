import Glibc
import Platform
import TestSupport
import Testing

/// Descriptors, mappings, events, threads: owned, and gone with their owners.
@Suite struct ResourceTests {
    @Test func `a mapping shares a file's bytes`() throws {
        let file = try makeMemoryFile(name: "test", count: 8192)
        let first = try Mapping(sharing: file, count: 8192)
        let second = try Mapping(sharing: file, offset: 4096, count: 4096, writable: false)
        unsafe first.base.storeBytes(of: 0x1122_3344, toByteOffset: 4096, as: UInt32.self)
        #expect(unsafe second.base.load(as: UInt32.self) == 0x1122_3344)
    }

    @Test func `anonymous memory is zero, and nothing is no mapping`() throws {
        let memory = try Mapping(anonymous: 100)
        #expect(unsafe memory.base.load(fromByteOffset: 99, as: UInt8.self) == 0)
        #expect(throws: Errno.invalidArgument) { _ = try Mapping(anonymous: 0) }
    }

    @Test func `an event rings once for any number of signals`() throws {
        let event = try EventFD()
        #expect(!waitForInput(event.fd.number, milliseconds: 0))
        event.signal()
        signalEvent(event.fd.number)
        #expect(waitForInput(event.fd.number, milliseconds: 0))
        let (first, second) = (event.clear(), event.clear())
        #expect(first && !second)
    }

    @Test func `an edge is reported once, a level for as long as it lasts`() throws {
        let (edge, level) = (try EventBox(), try EventBox())
        let poller = try Poller()
        try poller.watch(edge.event.fd.number, token: 7, edge: true)
        try poller.watch(level.event.fd.number, token: 8)
        #expect(poller.wait(milliseconds: 0) == 0)
        edge.event.signal()
        #expect(poller.wait(milliseconds: 0) == 1)
        #expect(poller.token(at: 0) == 7)
        #expect(poller.wait(milliseconds: 0) == 0)
        // A new arrival is a new edge, though nobody has read the old one.
        edge.event.signal()
        #expect(poller.wait(milliseconds: 0) == 1)
        level.event.signal()
        for _ in 0..<2 {
            #expect(poller.wait(milliseconds: 0) == 1)
            #expect(poller.token(at: 0) == 8)
        }
        poller.forget(level.event.fd.number)
        #expect(poller.wait(milliseconds: 0) == 0)
    }

    @Test func `a thread runs its body and can be waited for`() throws {
        let event = try EventBox()
        let thread = try JoinableThread(name: "a name longer than the kernel keeps") { event.event.signal() }
        thread.join()
        let ran = event.event.clear()
        #expect(ran)
        #expect(throws: Errno.self) { try pinCurrentThread(toCPU: 100_000) }
    }

    @Test func `an error says what failed, on what, why, and what to do`() {
        let error = SystemError(cannot: "open the image", "/x", .noEntry, advice: "Make it first")
        #expect("\(error)" == "cannot open the image /x: No such file or directory. Make it first")
        #expect("\(SystemError(cannot: "serve", "/x", nil))" == "cannot serve /x")
    }

    @Test func `a small file is read without its line feed, and what is not there is nil`() throws {
        let directory = try TemporaryDirectory()
        try TestFile.create(directory.file("a"), count: 0)
        try TestFile.write(Array("12\n".utf8), to: directory.file("a"), at: 0)
        #expect(readSmallFile(directory.file("a")) == "12")
        #expect(readSmallFile(directory.file("b")) == nil)
    }
}

/// An event that a closure can hold.
private final class EventBox: Sendable {
    let event: EventFD

    init() throws(Errno) {
        event = try EventFD()
    }
}
