import NIOCore
import Synchronization

/// One connection between two hosts, as the group sees it.
final class HostConnection: Sendable {
    let channel: any Channel
    /// Bytes of messages that were received and not handled yet.
    private let underWay = Atomic(0)
    private let isMember: NIOLoopBoundBox<Bool>

    /// Those among which it counts until it is a member; `nil` at the side that has connected, to which the hub
    /// shows that it is the one by being there.
    private let strangers: HostStrangers?

    /// To be called on the channel's event loop.
    init(_ channel: any Channel, among strangers: HostStrangers?) {
        self.channel = channel
        self.strangers = strangers
        isMember = NIOLoopBoundBox(strangers == nil, eventLoop: channel.eventLoop)
    }

    /// Whether the other side belongs to the group; asked on the event loop.
    var belongs: Bool { isMember.value }

    /// The other side belongs to the group from now on, and is told so.
    func welcome(_ message: HostMessage) {
        channel.eventLoop.execute { [self] in
            isMember.value = true
            strangers?.leave(channel)
            send(message)
        }
    }

    func send(_ message: HostMessage) { channel.writeAndFlush(message, promise: nil) }

    func close() { channel.close(promise: nil) }

    /// Counts a message that was received; `false` when more is under way than a host may send at a time.
    func begins(_ message: HostMessage) -> Bool {
        underWay.add(message.byteCount, ordering: .relaxed).newValue <= Self.underWayMax
    }

    func handled(_ message: HostMessage) {
        underWay.subtract(message.byteCount, ordering: .relaxed)
    }

    /// The longest message, and many short ones.
    private static let underWayMax = HostLimits.frameByteCountMax + 64 << 20
}

/// The connections that have not shown that they belong to the group: some, of which the oldest gives way.
final class HostStrangers: Sendable {
    private let channels = Mutex<[any Channel]>([])

    func enter(_ channel: any Channel) {
        let oldest = channels.withLock { channels -> (any Channel)? in
            channels.append(channel)
            return channels.count > HostLimits.strangerCountMax ? channels.removeFirst() : nil
        }
        oldest?.close(promise: nil)
    }

    func leave(_ channel: any Channel) {
        channels.withLock { $0.removeAll { $0 === channel } }
    }
}
