import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Holds one connection to what its party may take.
///
/// A stranger gets one answer, and has a few seconds to ask for it. What it sends after that is not
/// looked at.
final class ConnectionHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    /// How long a connection may take to show who it is.
    static let strangerTime = TimeAmount.seconds(10)
    /// How long a stranger may take to read its answer, while it still sends.
    private static let lingerTime = TimeAmount.seconds(1)

    private let connections: Connections
    private var deadline: Scheduled<Void>?
    private var hasEnded = false

    init(_ connections: Connections) {
        self.connections = connections
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        connections.open(channel)
        deadline = context.eventLoop.scheduleTask(in: Self.strangerTime) { [connections] in
            if connections.isStranger(channel) { channel.close(promise: nil) }
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        deadline?.cancel()
        connections.close(context.channel)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if hasEnded { return }
        if case .head = unwrapInboundIn(data) { connections.begin(context.channel) }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(var head):
            if connections.isStranger(context.channel) { head.headerFields[.connection] = "close" }
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body:
            context.write(data, promise: promise)
        case .end:
            connections.end(context.channel)
            guard connections.isStranger(context.channel) else {
                context.write(data, promise: promise)
                return
            }
            context.writeAndFlush(data, promise: promise)
            end(context)
        }
    }

    /// Closes what is sent; closing both ways at once could take the answer from a client that is
    /// still sending.
    private func end(_ context: ChannelHandlerContext) {
        hasEnded = true
        context.close(mode: .output, promise: nil)
        let channel = context.channel
        deadline?.cancel()
        deadline = context.eventLoop.scheduleTask(in: Self.lingerTime) {
            channel.close(promise: nil)
        }
    }
}
