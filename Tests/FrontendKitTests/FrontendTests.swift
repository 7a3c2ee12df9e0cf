import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser

/// Back-ends that say the wrong thing, or nothing: the front-end says what happened, and never waits for ever.
@Suite struct FrontendTests {
    static let timeouts = FrontendTimeouts(connect: 200, reply: 200, drain: 200)

    /// Connects to a back-end that does what `answer` does with one connection.
    static func connect(_ answer: @escaping @Sendable (borrowing UnixStream) -> Void) throws -> FrontendError? {
        let directory = try TemporaryDirectory()
        let path = directory.file("backend.sock")
        let listener = try UnixListener(at: path)
        let thread = try JoinableThread(name: "backend") {
            do throws(Errno) {
                let stream = try listener.accept()
                answer(stream)
                // Until the front-end closes.
                while try receiveAll(stream) > 0 {}
            } catch {
                Issue.record("\(error)")
            }
        }
        var failure: FrontendError?
        do throws(FrontendError) {
            _ = try Frontend.connect(to: path, timeouts: timeouts)
        } catch {
            failure = error
        }
        thread.join()
        return failure
    }

    @Test func nobodyListens() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("nobody.sock")
        let error = #expect(throws: FrontendError.self) {
            _ = try Frontend.connect(to: path, timeouts: Self.timeouts)
        }
        #expect(error?.description.contains("No back-end listens there after 200 ms.") == true)
    }

    @Test func aSilentBackendIsNotWaitedForWithoutEnd() throws {
        let error = try #require(try Self.connect { _ in })
        #expect(error.message == .getFeatures)
        guard case .noAnswer(milliseconds: 200) = error.reason else {
            Issue.record("\(error)")
            return
        }
    }

    @Test func aBackendThatGoesAwayIsNamed() throws {
        let error = try #require(
            try Self.connect { stream in
                shutdown(stream.fd.number, Int32(SHUT_RDWR))
            })
        // Whether the first message still goes out is chance.
        #expect([RequestKind.setOwner, .getFeatures].contains(error.message), "\(error)")
    }

    @Test func anAnswerToAnotherMessageIsNoAnswer() throws {
        let error = try #require(
            try Self.connect { stream in
                sendAll(BackendReply.value(0).encode(to: .getQueueCount), to: stream)
            })
        guard case .malformed = error.reason else {
            Issue.record("\(error)")
            return
        }
    }

    @Test func aDeviceBeforeVersion1IsRefused() throws {
        let error = try #require(
            try Self.connect { stream in
                sendAll(BackendReply.value(0).encode(to: .getFeatures), to: stream)
            })
        guard case .missing = error.reason else {
            Issue.record("\(error)")
            return
        }
    }
}

private func receiveAll(_ stream: borrowing UnixStream) throws(Errno) -> Int {
    var bytes = [UInt8](repeating: 0, count: 4096)
    var span = bytes.mutableSpan
    let part = try unsafe span.withUnsafeMutableBytes { (buffer) throws(Errno) in
        try unsafe stream.receive(into: buffer)
    }
    return part.byteCount
}

private func sendAll(_ bytes: [UInt8], to stream: borrowing UnixStream) {
    do throws(Errno) {
        try unsafe bytes.span.withUnsafeBytes { (buffer) throws(Errno) in try unsafe stream.send(buffer) }
    } catch {
        Issue.record("\(error)")
    }
}
