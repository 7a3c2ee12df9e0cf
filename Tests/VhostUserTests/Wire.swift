import Glibc
import Platform
import Testing
import VhostUser

/// A connection over a real socket pair, in one thread: the front-end's end, the back-end's end, and a device behind
/// it.
final class Wire {
    private(set) var frontend: MessageChannel
    private var connection: Connection<RecordingDevice>
    let device: RecordingDevice

    init(_ device: RecordingDevice = RecordingDevice(), patience: Int = MessageChannel.defaultPatience) throws {
        let pair = try UnixStreamPair()
        frontend = try MessageChannel(stream: UnixStream(owning: pair.first.fd.duplicate()))
        let backend = UnixStream(owning: try pair.second.fd.duplicate())
        connection = try Connection(stream: backend, device: device, patience: patience)
        self.device = device
    }

    /// Sends bytes as they are, with so many descriptors.
    func send(raw bytes: [UInt8], fdCount: Int = 0) throws {
        let fds = (0..<fdCount).map { _ in HeldFD(anyFD()) }
        try frontend.send(bytes, fds: fds.map(\.number))
    }

    /// Sends a message with the descriptors that it takes, lets the back-end serve it, and returns the reply if one
    /// came.
    @discardableResult
    func exchange(
        _ message: FrontendMessage, needsReply: Bool = false, fdCount: Int? = nil
    ) throws -> BackendReply? {
        let bytes = message.encode(flags: needsReply ? .needReply : [])
        try send(raw: bytes, fdCount: fdCount ?? message.fdCount.lowerBound)
        _ = try serve()
        return try reply(to: message.kind)
    }

    /// Lets the back-end serve one message.
    func serve() throws(ConnectionEnd) -> Served {
        try connection.serveOne()
    }

    /// Waits until the back-end has input.
    func waitForBackendInput() {
        _ = waitForInput(connection.number, milliseconds: 10_000)
    }

    /// The reply that is there, if one is.
    func reply(to kind: RequestKind) throws -> BackendReply? {
        guard let message = try frontend.receive() else { return nil }
        return try message.reply(to: kind)
    }

    /// The front-end ends the stream. What the back-end says then.
    func hangUp() -> String? {
        shutdown(frontend.stream.fd.number, Int32(SHUT_WR))
        return end()
    }

    /// The front-end's end is closed at once, with all that it has not read.
    func leave() throws {
        let other = try UnixStreamPair()
        frontend = try MessageChannel(stream: UnixStream(owning: other.first.fd.duplicate()))
    }

    /// Serves until the connection ends, and says why it did; nil if it waits for more.
    func end() -> String? {
        do throws(ConnectionEnd) {
            while try connection.serveOne() != .nothing {}
            return nil
        } catch {
            return error.description
        }
    }
}

/// How many sockets and memory files this process has open: what connections and their tests are made of. The runtime's
/// own descriptors, which it opens when it likes, do not count.
func openFDCount() -> Int {
    (0..<1024).count { number in
        var target = [UInt8](repeating: 0, count: 64)
        let length = unsafe readlink("/proc/self/fd/\(number)", &target, target.count)
        let text = String(decoding: target.prefix(max(0, length)), as: UTF8.self)
        return text.hasPrefix("socket:") || text.hasPrefix("/memfd:")
    }
}
