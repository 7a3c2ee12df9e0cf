import Glibc
import Platform
import TestSupport
import Testing

/// Sockets that pass descriptors, and sockets in the file system.
@Suite struct SocketTests {
    @Test func `bytes and descriptors arrive together, and those that nobody takes are closed`() throws {
        let pair = try UnixStreamPair()
        let event = try EventFD()
        let number = event.fd.number
        unsafe try [UInt8](1...5).withUnsafeBytes { try unsafe pair.first.send($0, fds: [number, number]) }
        var buffer = [UInt8](repeating: 0, count: 16)
        var fds = ReceivedFDs()
        let count = try receive(from: pair.second, into: &buffer, &fds)
        #expect(count == 5)
        #expect(buffer.prefix(5) == [1, 2, 3, 4, 5])
        let fdCount = fds.count
        #expect(fdCount == 2)
        let isOpen = isOpenAfterwards(fds.takeFirst()!)
        #expect(!isOpen)
        let left = fds.count
        #expect(left == 1)
        // The one that was taken and let go of is closed; the event lives on in the one that is left.
        event.signal()
        let other = EventFD(owning: fds.takeFirst()!)
        let rang = other.clear()
        #expect(rang)
    }

    /// - Returns: how many bytes came.
    private func receive(
        from stream: borrowing UnixStream, into buffer: inout [UInt8], _ fds: inout ReceivedFDs, waiting: Bool = true
    ) throws(Errno) -> Int {
        let storage = UnsafeMutableRawBufferPointer.allocate(byteCount: buffer.count, alignment: 1)
        defer { unsafe storage.deallocate() }
        var received = try unsafe stream.receive(into: storage, waiting: waiting)
        fds = received.takeFDs()
        unsafe buffer.replaceSubrange(0..<received.byteCount, with: storage.prefix(received.byteCount))
        return received.byteCount
    }

    /// Whether a descriptor is still open once its owner has let go of it.
    private func isOpenAfterwards(_ fd: consuming OwnedFD) -> Bool {
        let number = fd.number
        let name = eventName(number)
        _ = consume fd
        // Another test may have opened something else under that number by now.
        return eventName(number) == name
    }

    /// What the kernel calls an eventfd; nil for anything else.
    private func eventName(_ number: Int32) -> Substring? {
        readSmallFile("/proc/self/fdinfo/\(number)")?.split(separator: "\n").first { $0.hasPrefix("eventfd-id:") }
    }

    @Test func `the end of the stream is zero bytes, and a peer that is gone is an error, not a signal`() throws {
        let pair = try UnixStreamPair()
        _ = close(fcntl(pair.first.fd.number, F_DUPFD, 3))
        shutdown(pair.first.fd.number, Int32(SHUT_RDWR))
        var buffer = [UInt8](repeating: 0, count: 4)
        var fds = ReceivedFDs()
        let count = try receive(from: pair.second, into: &buffer, &fds)
        #expect(count == 0)
        #expect(throws: Errno(rawValue: EPIPE)) {
            try unsafe buffer.withUnsafeBytes { try unsafe pair.second.send($0) }
        }
    }

    @Test func `a receive that does not wait says that there is nothing`() throws {
        let pair = try UnixStreamPair()
        var buffer = [UInt8](repeating: 0, count: 4)
        #expect(throws: Errno.wouldBlock) {
            var fds = ReceivedFDs()
            _ = try receive(from: pair.second, into: &buffer, &fds, waiting: false)
        }
    }

    @Test func `a socket appears when it can be connected to, and replaces only a dead one`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("a.sock")
        var listener: UnixListener? = try UnixListener(at: path)
        #expect(!TestFile.exists(path + "~"))
        _ = try UnixStream(connectingTo: path)
        #expect(throws: Errno(rawValue: EADDRINUSE)) { _ = try UnixListener(at: path) }
        listener = nil
        _ = consume listener
        _ = try UnixListener(at: path)
        let file = directory.file("file")
        try TestFile.create(file, count: 1)
        #expect(throws: Errno(rawValue: ENOTSOCK)) { _ = try UnixListener(at: file) }
        #expect(TestFile.exists(file))
        let long = directory.file(String(repeating: "x", count: 107))
        #expect(throws: Errno(rawValue: ENAMETOOLONG)) { _ = try UnixListener(at: long) }
        #expect(throws: Errno.noEntry) { _ = try UnixListener(at: directory.file("no/such")) }
    }

    @Test func `a listening socket is told from a connected one`() throws {
        let directory = try TemporaryDirectory()
        let listener = try UnixListener(at: directory.file("a.sock"))
        let pair = try UnixStreamPair()
        #expect(UnixListener.isListening(listener.fd.number))
        #expect(!UnixListener.isListening(pair.first.fd.number))
        #expect(!UnixListener.isListening(0))
    }
}
