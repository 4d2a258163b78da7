import NIOCore

/// Cuts the stream into frames: a 32-bit length, then so many bytes.
struct HostFrameDecoder: ByteToMessageDecoder {
    typealias InboundOut = HostMessage
    private static let frameByteCountMax = 1 << 30

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws
        -> DecodingState
    {
        guard let length = buffer.getInteger(at: buffer.readerIndex, as: UInt32.self) else {
            return .needMoreData
        }
        guard length <= Self.frameByteCountMax else {
            throw HostError(.protocolViolation, "a host announced a frame of \(length) bytes")
        }
        guard buffer.readableBytes >= 4 + Int(length) else { return .needMoreData }
        buffer.moveReaderIndex(forwardBy: 4)
        let frame = buffer.readBytes(length: Int(length)) ?? []
        context.fireChannelRead(wrapInboundOut(try HostMessage(frame: frame)))
        return .continue
    }
}

struct HostFrameEncoder: MessageToByteEncoder {
    typealias OutboundIn = HostMessage

    func encode(data: HostMessage, out: inout ByteBuffer) throws {
        let frame = data.frame()
        out.writeInteger(UInt32(frame.count))
        out.writeBytes(frame)
    }
}

/// Hands what comes over one connection on, keeps it alive, and ends it when the peer is silent.
final class HostChannelHandler: ChannelInboundHandler {
    typealias InboundIn = HostMessage

    /// What happens on connections, in order.
    enum Event: Sendable {
        case opened(any Channel)
        case received(any Channel, HostMessage)
        case closed(any Channel, reason: String)
    }

    private static let pingInterval = TimeAmount.seconds(1)

    private let events: AsyncStream<Event>.Continuation
    private var reason = "it closed the connection"
    private var ping: RepeatedTask?

    init(_ events: AsyncStream<Event>.Continuation) { self.events = events }

    func channelActive(context: ChannelHandlerContext) {
        let channel = context.channel
        ping = context.eventLoop.scheduleRepeatedTask(
            initialDelay: Self.pingInterval, delay: Self.pingInterval
        ) { _ in channel.writeAndFlush(HostMessage.ping, promise: nil) }
        events.yield(.opened(channel))
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let message = unwrapInboundIn(data)
        if message != .ping { events.yield(.received(context.channel, message)) }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let idle = event as? IdleStateHandler.IdleStateEvent, idle == .read {
            let seconds = HostChannels.silenceMax.nanoseconds / 1_000_000_000
            reason = "nothing came from it for \(seconds) s"
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        reason = "\(error)"
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        ping?.cancel()
        events.yield(.closed(context.channel, reason: reason))
    }
}

enum HostChannels {
    /// A host that sends nothing for so long is lost; a living one sends something every second.
    static let silenceMax = TimeAmount.seconds(5)

    static func configure(
        _ channel: any Channel, _ events: AsyncStream<HostChannelHandler.Event>.Continuation
    ) -> EventLoopFuture<Void> {
        channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandlers([
                IdleStateHandler(readTimeout: silenceMax),
                ByteToMessageHandler(HostFrameDecoder()),
                MessageToByteHandler(HostFrameEncoder()),
                HostChannelHandler(events),
            ])
        }
    }
}
