public import Platform

/// One front-end's connection: reads its messages, carries them out on the device, answers.
///
/// An event loop watches `number` for input and calls `serveOne`. When the connection ends, whether by an error that
/// `serveOne` throws or because its owner lets go of it, the device is reset.
public struct Connection<Device: VhostUserDevice>: ~Copyable {
    private var channel: MessageChannel
    private let device: Device
    private var session: Session
    private var hasEnded = false

    /// - Parameter device: in the state before the first message.
    /// - Parameter patience: how long the rest of a message, or the peer's reading of a reply, may take; milliseconds.
    /// - Throws: the descriptor is no socket.
    public init(
        stream: consuming UnixStream, device: Device, patience: Int = MessageChannel.defaultPatience
    ) throws(SystemError) {
        do throws(Errno) {
            channel = try MessageChannel(stream: stream, patience: patience)
        } catch {
            throw SystemError(cannot: "use", "the vhost-user socket", error)
        }
        self.device = device
        session = Session(offer: DeviceOffer(of: device))
    }

    /// The socket's number, to watch it for input.
    public var number: Int32 { channel.stream.fd.number }

    /// What a queue still waits for, for who wonders why a guest hangs.
    public func missing(queue: Int) -> VringNeeds {
        session.missing(queue: queue)
    }

    /// Reads one message, carries it out, and answers it. Call it when the socket has input; without input it returns
    /// at once.
    ///
    /// It waits only for the rest of a message that has begun, for a peer that does not read, and for the device.
    ///
    /// - Throws: why the connection has ended. The device was reset; the connection is not to be used again.
    public mutating func serveOne() throws(ConnectionEnd) -> Served {
        precondition(!hasEnded, "the connection has ended")
        do throws(ConnectionEnd) {
            return try serve()
        } catch {
            end()
            throw error
        }
    }

    private mutating func serve() throws(ConnectionEnd) -> Served {
        guard let incoming = try channel.receive() else { return .nothing }
        let message = try incoming.request()
        let kind = incoming.header.kind
        let needsReply = incoming.header.flags.contains(.needReply)
        var fds = incoming.fds
        var step = session.receive(message, needsReply: needsReply)
        var file: InflightFile?
        // At most each queue stopped, the change, and each queue started.
        while case .call(let call) = step {
            let answer = call.perform(on: device, fds: &fds)
            if case .inflight(let made) = answer { file = made }
            step = session.resume(answer)
        }
        switch step {
        case .call, .done:
            break
        case .reply(let reply):
            try channel.send(reply.encode(to: kind), fds: file.map { [$0.fd.number] } ?? [])
        case .refuse(let refusal):
            try channel.send(BackendReply.failure.encode(to: kind))
            return .refused(refusal)
        case .close(let refusal):
            throw .refused(refusal)
        }
        return .message(kind)
    }

    private mutating func end() {
        hasEnded = true
        device.reset(keepingMemory: false)
    }

    deinit {
        if !hasEnded { device.reset(keepingMemory: false) }
    }
}

/// What one call of `Connection.serveOne` did.
public enum Served: Hashable, Sendable {
    /// There was no message.
    case nothing
    /// A message was carried out.
    case message(RequestKind)
    /// A message was refused; the peer was told so and the connection goes on.
    case refused(RequestRefusal)
}
