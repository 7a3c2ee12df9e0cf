internal import ControlAPI
internal import Foundation
internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import Platform

/// The control socket: JSON-RPC 2.0, one object a line.
struct ControlServer {
    private let group: MultiThreadedEventLoopGroup
    private let channel: any Channel
    private let path: String

    /// Listens.
    ///
    /// - Throws: a sentence when the path is taken or cannot be had.
    init(path: String, access: ControlAccess, service: ControlService) throws {
        let listener: UnixListener
        do throws(Errno) {
            listener = try UnixListener(
                at: path, access: SocketAccess(mode: access.mode, group: access.group), backlog: 64)
        } catch {
            throw SystemError(
                cannot: "listen at", path, error,
                advice: error == Errno(rawValue: EADDRINUSE) ? "Another batond runs there" : "")
        }
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        channel = try ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers([
                        ByteToMessageHandler(LineDecoder(), maximumBufferSize: JSONRPC.maximumLineBytes),
                        ControlHandler(service: service, access: access),
                    ])
                }
            }
            .withBoundSocket(try listener.fd.duplicate().release()).wait()
        self.path = path
    }

    func close() {
        try? channel.close().wait()
        try? group.syncShutdownGracefully()
        unsafe unlink(path)
    }
}

/// Cuts a stream into lines, without their ends.
private struct LineDecoder: ByteToMessageDecoder {
    typealias InboundOut = ByteBuffer

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) -> DecodingState {
        guard let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) else { return .needMoreData }
        let line = buffer.readSlice(length: end - buffer.readerIndex)
        buffer.moveReaderIndex(forwardBy: 1)
        if let line { context.fireChannelRead(wrapInboundOut(line)) }
        return .continue
    }

    mutating func decodeLast(
        context: ChannelHandlerContext, buffer: inout ByteBuffer, seenEOF: Bool
    ) -> DecodingState { .needMoreData }
}

/// One caller.
private final class ControlHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let service: ControlService
    private let access: ControlAccess
    private var caller: ControlService.Caller?
    private var subscriptions: [@Sendable () -> Void] = []

    /// Subscriptions of one connection.
    private static let maximumSubscriptions = 4

    init(service: ControlService, access: ControlAccess) {
        self.service = service
        self.access = access
    }

    func channelActive(context: ChannelHandlerContext) {
        let channel = context.channel
        caller = ControlService.Caller(refusal: access.refusal(of: channel)) { line in
            // A follower that does not read is let go of: it must not fill our memory.
            guard channel.isWritable else {
                channel.close(promise: nil)
                return
            }
            channel.writeAndFlush(ByteBuffer(bytes: line), promise: nil)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let caller, subscriptions.count < Self.maximumSubscriptions else {
            context.close(promise: nil)
            return
        }
        let line = Data(unwrapInboundIn(data).readableBytesView)
        if let end = service.carryOut(line, for: caller) { subscriptions.append(end) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        for end in subscriptions { end() }
        subscriptions = []
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }
}
