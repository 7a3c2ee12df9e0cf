import Glibc
import Platform
import Testing
import VhostUser
import Virtio

/// Messages over a real socket: in pieces, cut off, with too many descriptors; and what remains when a connection ends.
@Suite struct ConnectionTests {
    // MARK: Framing

    @Test func `without input nothing happens`() throws {
        let wire = try Wire()
        #expect(try wire.serve() == .nothing)
        #expect(wire.device.events.isEmpty)
    }

    @Test func `a reply has the kind of its request and the reply flag`() throws {
        let wire = try Wire()
        #expect(try wire.exchange(.setProtocolFeatures(.mq)) == nil)
        #expect(try wire.exchange(.getQueueCount) == .value(2))
    }

    @Test func `messages that come in one piece are served one by one, each with its own descriptors`() throws {
        let wire = try Wire()
        try wire.send(raw: FrontendMessage.setOwner.encode())
        try wire.send(raw: FrontendMessage.setMemoryTable([ringMemory, otherMemory]).encode(), fdCount: 2)
        try wire.send(raw: FrontendMessage.setVringKick(VringFile(index: 1, hasFD: true)).encode(), fdCount: 1)
        try wire.send(raw: FrontendMessage.setVringCall(VringFile(index: 1, hasFD: false)).encode())
        let end = wire.end()
        #expect(end == nil)
        #expect(
            wire.device.events == [
                .memory([ringMemory, otherMemory], fdCount: 2), .kick(1, hasFD: true), .call(1, hasFD: false),
            ])
    }

    @Test func `a message is read from pieces of any size`() throws {
        for size in 1...21 {
            let device = RecordingDevice()
            let wire = try Wire(device)
            let message = FrontendMessage.setMemoryTable([ringMemory, otherMemory])
            let sender = try PieceSender(wire.frontend.stream.fd, message.encode(), fdCount: 2, size: size)
            while device.events.isEmpty {
                wire.waitForBackendInput()
                _ = try wire.serve()
            }
            sender.join()
            #expect(device.events == [.memory([ringMemory, otherMemory], fdCount: 2)])
        }
    }

    @Test func `every message cut off at every byte ends the connection and says where`() throws {
        for (message, bytes) in goldenMessages {
            for count in 0..<bytes.count {
                let wire = try Wire()
                if count > 0 { try wire.send(raw: Array(bytes.prefix(count)), fdCount: message.fdCount.lowerBound) }
                let end = wire.hangUp()
                if count == 0 {
                    #expect(end == "the peer closed the connection")
                } else if count < 12 {
                    #expect(end == "the peer closed the connection after \(count) of 12 bytes of a header")
                } else {
                    let text =
                        "the peer closed the connection after \(count) of \(bytes.count) bytes of \(message.kind)"
                    #expect(end == text)
                }
                #expect(wire.device.events == [.reset(keepingMemory: false)])
            }
        }
    }

    @Test func `the rest of a message is waited for only so long`() throws {
        for (count, text) in [(5, "only 5 of 12 bytes of a header"), (20, "only 20 of 52 bytes of SET_VRING_ADDR")] {
            let wire = try Wire(patience: 1)
            try wire.send(raw: Array(FrontendMessage.setVringAddress(ringAddress()).encode().prefix(count)))
            let end = wire.end()
            #expect(end == text + " came in time")
        }
    }

    @Test func `a peer that does not read its replies is given up`() throws {
        let wire = try Wire(patience: 1)
        var end: String?
        // A socket's buffer is full long before.
        for _ in 0..<100_000 where end == nil {
            try wire.send(raw: FrontendMessage.getFeatures.encode())
            end = wire.end()
        }
        #expect(end == "the peer does not read its replies")
    }

    @Test func `a peer that goes without reading its reply has closed the connection`() throws {
        let wire = try Wire()
        try wire.send(raw: FrontendMessage.getFeatures.encode())
        #expect(try wire.serve() == .message(.getFeatures))
        try wire.send(raw: FrontendMessage.getFeatures.encode())
        try wire.leave()
        #expect(wire.end() == "the peer closed the connection")
        #expect(wire.device.events == [.reset(keepingMemory: false)])
    }

    @Test func `what is no socket is refused at once`() {
        let error = #expect(throws: SystemError.self) {
            _ = try Connection(stream: UnixStream(owning: anyFD()), device: RecordingDevice())
        }
        #expect(error?.description == "cannot use the vhost-user socket: Socket operation on non-socket")
    }

    // MARK: Refusals

    @Test func `a malformed message ends the connection with a sentence`() throws {
        let wire = try Wire()
        try wire.send(raw: le(UInt32(8)) + le(UInt32(1)) + le(UInt32(7)) + [0, 0, 0, 0, 1, 0, 0])
        let end = wire.end()
        #expect(end == "SET_VRING_NUM: 7 bytes of payload instead of 8")
        #expect(wire.device.events == [.reset(keepingMemory: false)])
    }

    @Test(arguments: [0, 2, 200])
    func `a wrong number of descriptors ends the connection`(count: Int) throws {
        let wire = try Wire()
        try wire.send(raw: FrontendMessage.setVringKick(VringFile(index: 0, hasFD: true)).encode(), fdCount: count)
        let end = wire.end()
        #expect(end == "SET_VRING_KICK: \(count) file descriptors instead of 1")
    }

    @Test func `descriptors in the middle of a message end the connection`() throws {
        let wire = try Wire()
        let bytes = FrontendMessage.setVringKick(VringFile(index: 0, hasFD: true)).encode()
        try wire.send(raw: Array(bytes.prefix(12)), fdCount: 1)
        try wire.send(raw: Array(bytes.dropFirst(12)), fdCount: 1)
        let end = wire.end()
        #expect(end == "SET_VRING_KICK: file descriptors came in the middle of the message")
    }

    @Test func `an unknown message ends the connection, or is refused where that can be said`() throws {
        let unknown = FrontendMessage.other(RequestKind(rawValue: 4711), payload: [1, 2, 3])
        let silent = try Wire()
        try silent.send(raw: unknown.encode(), fdCount: 2)
        let end = silent.end()
        #expect(end == "message 4711 refused: this back-end offers no feature that has it")
        let asking = try Wire()
        try asking.exchange(.setProtocolFeatures(.replyAck))
        #expect(try asking.exchange(unknown, needsReply: true, fdCount: 2) == .failure)
        #expect(try asking.exchange(.setOwner, needsReply: true) == .success)
    }

    @Test func `a refusal that was acknowledged is told to whoever keeps the log`() throws {
        let wire = try Wire()
        try wire.exchange(.setProtocolFeatures(.replyAck))
        try wire.send(raw: FrontendMessage.setFeatures(1).encode(flags: .needReply))
        #expect(try wire.serve() == .refused(RequestRefusal(.setFeatures, .featuresNotOffered(1))))
    }

    // MARK: End

    @Test func `a connection that its owner lets go of resets the device`() throws {
        let device = RecordingDevice()
        do {
            let wire = try Wire(device)
            try wire.exchange(.setFeatures(1 << 32))
            for message in startMessages { try wire.exchange(message) }
            #expect(device.running == [0: ringSetup()])
        }
        #expect(device.events.last == .reset(keepingMemory: false))
        #expect(device.events.count { $0 == .reset(keepingMemory: false) } == 1)
    }

    @Test func `a device serves one connection after the other`() throws {
        let device = RecordingDevice()
        for _ in 0..<3 {
            let wire = try Wire(device)
            try wire.exchange(.setFeatures(1 << 32))
            for message in startMessages { try wire.exchange(message) }
            #expect(device.running == [0: ringSetup()])
            _ = wire.hangUp()
            #expect(device.running.isEmpty)
        }
    }

    // MARK: Descriptors. In processes of their own: other tests open and close theirs meanwhile.

    @Test func `no descriptor leaks, whatever a message is refused for`() async {
        await #expect(processExitsWith: .success) {
            let before = openFDCount()
            for (message, bytes) in goldenMessages {
                for fdCount in [0, 1, 2, 9, 253] {
                    let wire = try Wire()
                    try wire.exchange(.setProtocolFeatures(DeviceOffer.commonProtocolFeatures))
                    try wire.send(raw: bytes, fdCount: fdCount)
                    _ = wire.hangUp()
                    let cutOff = try Wire()
                    try cutOff.send(raw: Array(bytes.prefix(7)), fdCount: fdCount)
                    _ = cutOff.hangUp()
                }
                try #require(openFDCount() == before, "\(message.kind)")
            }
        }
    }

    @Test func `no descriptor leaks when eventfds and memory are replaced again and again`() async {
        await #expect(processExitsWith: .success) {
            let before = openFDCount()
            do {
                let device = RecordingDevice()
                let wire = try Wire(device)
                for _ in 0..<10 {
                    for message in startMessages { try wire.exchange(message) }
                    try wire.exchange(.getVringBase(VringState(index: 0, value: 0)))
                }
                try wire.exchange(.setProtocolFeatures(.memorySlots))
                try wire.exchange(.removeMemoryRegion(ringMemory), fdCount: 1)
                try #require(device.events.last == .removed(ringMemory))
                _ = wire.hangUp()
            }
            try #require(openFDCount() == before)
        }
    }

    @Test func `descriptors that this process cannot take end the connection`() async {
        await #expect(processExitsWith: .success) {
            let wire = try Wire()
            try wire.send(raw: FrontendMessage.setMemoryTable([ringMemory, otherMemory]).encode(), fdCount: 2)
            // One more number is free below the limit.
            let free = (0..<1024).filter { fcntl($0, F_GETFD) == -1 }
            var limit = rlimit(rlim_cur: rlim_t(free[1]), rlim_max: 1024)
            try #require(unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
            let end = wire.end()
            try #require(end?.hasPrefix("SET_MEM_TABLE: file descriptors were lost") == true)
        }
    }
}

/// Sends bytes in pieces from a thread of its own; the descriptors go with the first.
struct PieceSender: ~Copyable {
    private let thread: JoinableThread

    init(_ fd: borrowing OwnedFD, _ bytes: [UInt8], fdCount: Int, size: Int) throws {
        let socket = HeldFD(try fd.duplicate())
        let fds = (0..<fdCount).map { _ in HeldFD(anyFD()) }
        thread = try JoinableThread(name: "pieces") {
            let stream = UnixStream(owning: OwnedFD(owning: dup(socket.number)))
            var rest = fds.map(\.number)
            for start in stride(from: 0, to: bytes.count, by: size) {
                let piece = Array(bytes[start..<min(start + size, bytes.count)])
                do {
                    try unsafe piece.span.withUnsafeBytes { bytes throws(Errno) in
                        try unsafe stream.send(bytes, fds: rest)
                    }
                } catch {
                    Issue.record("a piece was not sent: \(error)")
                }
                rest = []
                sched_yield()
            }
        }
    }

    consuming func join() {
        thread.join()
    }
}
