import NIOCore

/// Cuts the stream into messages.
struct HostFrameDecoder: ByteToMessageDecoder {
    typealias InboundOut = HostMessage

    let connection: HostConnection
    private var frames = HostFrames()

    init(_ connection: HostConnection) { self.connection = connection }

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws
        -> DecodingState
    {
        guard let message = try frames.next(&buffer, isMember: connection.belongs) else {
            return .needMoreData
        }
        context.fireChannelRead(wrapInboundOut(message))
        return .continue
    }
}

struct HostFrameEncoder: MessageToByteEncoder {
    typealias OutboundIn = HostMessage

    func encode(data: HostMessage, out: inout ByteBuffer) throws {
        try HostFrames.write(data, to: &out)
    }
}

/// Hands what comes over one connection on, keeps it alive, and ends it when the peer is silent or does not
/// show in time that it belongs to the group.
final class HostChannelHandler: ChannelInboundHandler {
    typealias InboundIn = HostMessage

    /// What happens on connections, in order.
    enum Event: Sendable {
        /// This host has connected to the hub.
        case opened(HostConnection)
        case received(HostConnection, HostMessage)
        case closed(HostConnection, reason: String)
    }

    private static let pingInterval = TimeAmount.seconds(1)
    private static let greetingTimeMax = TimeAmount.seconds(5)

    private let connection: HostConnection
    private let events: AsyncStream<Event>.Continuation
    /// `nil` on the side that has connected.
    private let entrance: HostEntrance?
    private var hasGreeted = false
    private var reason = "it closed the connection"
    private var ping: RepeatedTask?
    private var greetingTimer: Scheduled<Void>?

    init(
        _ connection: HostConnection, _ events: AsyncStream<Event>.Continuation,
        _ entrance: HostEntrance?
    ) {
        self.connection = connection
        self.events = events
        self.entrance = entrance
    }

    func channelActive(context: ChannelHandlerContext) {
        let connection = connection
        ping = context.eventLoop.scheduleRepeatedTask(
            initialDelay: Self.pingInterval, delay: Self.pingInterval
        ) { _ in
            // Who does not read is not kept alive, and has nothing kept for it.
            if connection.channel.isWritable { connection.send(.ping) }
        }
        guard let entrance else {
            events.yield(.opened(connection))
            return
        }
        entrance.strangers.enter(connection.channel)
        greetingTimer = context.eventLoop.scheduleTask(in: Self.greetingTimeMax) {
            if !connection.belongs { connection.close() }
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let message = unwrapInboundIn(data)
        if message == .ping { return }
        if !connection.belongs {
            // One hello, and then nothing before the welcome.
            guard let entrance, !hasGreeted, case .hello(_, _, _, let token) = message else {
                return context.close(promise: nil)
            }
            guard entrance.admits(token) else {
                connection.send(.refused(reason: "it has another rendezvous token"))
                return context.close(promise: nil)
            }
            hasGreeted = true
        }
        guard connection.begins(message) else {
            reason = "it sent more than it may"
            return context.close(promise: nil)
        }
        events.yield(.received(connection, message))
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let idle = event as? IdleStateHandler.IdleStateEvent, idle == .read {
            let seconds = HostEntrance.silenceMax.nanoseconds / 1_000_000_000
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
        greetingTimer?.cancel()
        entrance?.strangers.leave(connection.channel)
        // Nobody knows of a stranger that has not said hello.
        if entrance == nil || hasGreeted { events.yield(.closed(connection, reason: reason)) }
    }
}

/// Where hosts come in at the hub.
struct HostEntrance: Sendable {
    /// A host that sends nothing for so long is lost; a living one sends something every second.
    static let silenceMax = TimeAmount.seconds(5)

    let token: String
    let strangers = HostStrangers()

    /// Compares in a time that tells nothing about where two texts differ.
    func admits(_ offered: String) -> Bool {
        let expected = Array(token.utf8)
        let offered = Array(offered.utf8)
        var difference = expected.count ^ offered.count
        for (index, byte) in offered.enumerated() {
            difference |= Int(byte ^ (expected.isEmpty ? 0 : expected[index % expected.count]))
        }
        return difference == 0
    }

    /// Sets up one end of a connection; `entrance` is `nil` at the side that connects.
    static func configure(
        _ channel: any Channel, _ events: AsyncStream<HostChannelHandler.Event>.Continuation,
        _ entrance: HostEntrance?
    ) -> EventLoopFuture<Void> {
        channel.eventLoop.makeCompletedFuture {
            let connection = HostConnection(channel, among: entrance?.strangers)
            try channel.pipeline.syncOperations.addHandlers([
                IdleStateHandler(readTimeout: silenceMax),
                ByteToMessageHandler(HostFrameDecoder(connection)),
                MessageToByteHandler(HostFrameEncoder()),
                HostChannelHandler(connection, events, entrance),
            ])
        }
    }
}
