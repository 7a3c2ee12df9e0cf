internal import Glibc
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import Platform
internal import SupervisorRuntime
internal import Synchronization
internal import Telemetry

/// Where scrapers find the metrics: GET /metrics over HTTP/1.1, on a UNIX socket, a loopback address, or both.
///
/// Bounded: so many connections, so many bytes of a request, so long for a request and its answer.
struct MetricsServer {
    private let group: MultiThreadedEventLoopGroup
    private let channels: [any Channel]
    private let path: String?

    /// Connections at a time; more are closed at once.
    static let maximumConnections = 16
    /// Bytes of one request.
    static let maximumRequestBytes = 8 << 10
    /// How long a request may take, from its first byte until its answer is written.
    static let requestLimit = TimeAmount.seconds(10)
    /// How long a connection may stay open with no request.
    static let idleLimit = TimeAmount.minutes(5)

    /// Listens.
    ///
    /// - Parameters:
    ///   - path: of a UNIX socket; nil: none.
    ///   - access: who may connect to it.
    ///   - address: a loopback address and a port; nil: none.
    ///   - version: of this supervisor.
    /// - Throws: a sentence when one of them cannot be had.
    init(path: String?, access: SocketAccess, address: SocketAddress?, supervisor: Supervisor, version: String) throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        self.path = path
        let permits = ConnectionPermits(Self.maximumConnections)
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let budget = RequestBudget(permits)
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(budget)
                    try pipeline.addHandler(IdleStateHandler(allTimeout: Self.idleLimit))
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(MetricsHandler(supervisor, version, budget))
                }
            }
        var channels: [any Channel] = []
        if let path {
            let listener: UnixListener
            do throws(Errno) {
                listener = try UnixListener(at: path, access: access, backlog: 16)
            } catch {
                throw SystemError(cannot: "listen at", path, error)
            }
            channels.append(try bootstrap.withBoundSocket(try listener.fd.duplicate().release()).wait())
        }
        if let address {
            do {
                channels.append(try bootstrap.bind(to: address).wait())
            } catch {
                throw SystemError(cannot: "listen at", "\(address): \(error)", nil, advice: "Is the port taken?")
            }
        }
        self.channels = channels
    }

    /// Where it listens, for people.
    var places: String {
        channels.compactMap { channel in
            guard let address = channel.localAddress else { return nil }
            // The socket was given its name after it was bound.
            return address.pathname == nil ? Self.name(address) : path
        }.joined(separator: " and ")
    }

    private static func name(_ address: SocketAddress) -> String {
        let host = address.ipAddress ?? ""
        return "http://\(host.contains(":") ? "[\(host)]" : host):\(address.port ?? 0)/metrics"
    }

    func close() {
        for channel in channels { try? channel.close().wait() }
        try? group.syncShutdownGracefully()
        if let path { unsafe unlink(path) }
    }

    /// Reads an address such as 127.0.0.1:9753 or [::1]:9753.
    ///
    /// - Returns: nil when it is none, or not of the loopback interface: the metrics tell about guests, and nobody is
    ///   asked who he is.
    static func loopback(_ text: String) -> SocketAddress? {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65535).contains(port)
        else { return nil }
        let host = text[..<colon]
        if host == "[::1]" { return try? SocketAddress(ipAddress: "::1", port: port) }
        guard host.hasPrefix("127."), let address = try? SocketAddress(ipAddress: String(host), port: port),
            address.protocol == .inet
        else { return nil }
        return address
    }
}

/// How many connections there may be yet.
private final class ConnectionPermits: Sendable {
    private let left: Atomic<Int>

    init(_ count: Int) { left = Atomic(count) }

    /// - Returns: false when there is none left.
    func enter() -> Bool {
        if left.subtract(1, ordering: .relaxed).oldValue > 0 { return true }
        leave()
        return false
    }

    func leave() { left.add(1, ordering: .relaxed) }
}

/// What a connection may use: a place, and for each request bytes and time.
private final class RequestBudget: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let permits: ConnectionPermits
    private var hasEntered = false
    private var bytesLeft = MetricsServer.maximumRequestBytes
    private var deadline: Scheduled<Void>?

    init(_ permits: ConnectionPermits) { self.permits = permits }

    func channelActive(context: ChannelHandlerContext) {
        hasEntered = permits.enter()
        if hasEntered { context.fireChannelActive() } else { context.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        if hasEntered { permits.leave() }
        hasEntered = false
        deadline?.cancel()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        bytesLeft -= unwrapInboundIn(data).readableBytes
        guard hasEntered, bytesLeft >= 0 else {
            context.close(promise: nil)
            return
        }
        if deadline == nil {
            let channel = context.channel
            deadline = context.eventLoop.scheduleTask(in: MetricsServer.requestLimit) { channel.close(promise: nil) }
        }
        context.fireChannelRead(data)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        context.fireUserInboundEventTriggered(event)
    }

    /// An answer was written.
    func renew() {
        bytesLeft = MetricsServer.maximumRequestBytes
        deadline?.cancel()
        deadline = nil
    }
}

/// Answers the requests of one connection, one after the other.
private final class MetricsHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let supervisor: Supervisor
    private let version: String
    private let budget: RequestBudget
    private var head: HTTPRequestHead?

    init(_ supervisor: Supervisor, _ version: String, _ budget: RequestBudget) {
        self.supervisor = supervisor
        self.version = version
        self.budget = budget
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body: break
        case .end:
            guard let head = head.take() else { return }
            answer(head, context)
        }
    }

    private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        let path = head.uri.prefix { $0 != "?" }
        guard head.method == .GET || head.method == .HEAD else {
            return send(.methodNotAllowed, "Only GET and HEAD.\n", head, context)
        }
        guard path == "/metrics" else { return send(.notFound, "The metrics are at /metrics.\n", head, context) }
        let (loop, version) = (context.eventLoop, version)
        let bound = NIOLoopBound((self, context), eventLoop: loop)
        supervisor.status(nil) { result in
            // Not on the custody thread.
            loop.execute {
                let (handler, context) = bound.value
                switch result {
                case .success(let statuses):
                    let page = MetricsPage(statuses, version: version)
                    handler.send(.ok, ByteBuffer(bytes: page.bytes), MetricsText.mediaType, head, context)
                case .failure(let error):
                    handler.send(.internalServerError, "\(error)\n", head, context)
                }
            }
        }
    }

    private func send(
        _ status: HTTPResponseStatus, _ text: String, _ head: HTTPRequestHead, _ context: ChannelHandlerContext
    ) {
        send(status, ByteBuffer(string: text), "text/plain; charset=utf-8", head, context)
    }

    private func send(
        _ status: HTTPResponseStatus, _ body: ByteBuffer, _ mediaType: String, _ head: HTTPRequestHead,
        _ context: ChannelHandlerContext
    ) {
        let keepsAlive = head.isKeepAlive
        let headers: HTTPHeaders = [
            "Content-Type": mediaType, "Content-Length": "\(body.readableBytes)",
            "Connection": keepsAlive ? "keep-alive" : "close",
        ]
        let answer = HTTPResponseHead(version: head.version, status: status, headers: headers)
        context.write(wrapOutboundOut(.head(answer)), promise: nil)
        if head.method != .HEAD { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        let bound = NIOLoopBound((budget, context), eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
            let (budget, context) = bound.value
            budget.renew()
            if !keepsAlive { context.close(promise: nil) }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }
}
