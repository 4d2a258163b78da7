import CheckpointTransport
import Synchronization

/// The groups in which this daemon sends to engines by vLLM's own weight transfer, kept from update to
/// update: joining is expensive.
final class NativeGroups: Sendable {
    struct Key: Hashable {
        let engines: [String]
        let workerCounts: [Int]
        let gpu: Int
    }

    /// A group, and the size that its members have agreed to end a chunk at.
    struct Member: Sendable {
        let group: PackedGroup
        let chunkByteCount: Int
    }

    private let kept = Mutex<[Key: Member]>([:])

    subscript(key: Key) -> Member? {
        kept.withLock { kept in
            guard let member = kept[key], member.group.isUsable else { return nil }
            return member
        }
    }

    func keep(_ member: Member, _ key: Key) { kept.withLock { $0[key] = member } }

    /// Leaves a group that cannot be trusted any more.
    func remove(_ key: Key) {
        kept.withLock { $0.removeValue(forKey: key) }?.group.leave()
    }

    func removeAll() {
        let members = kept.withLock { kept in
            defer { kept = [:] }
            return kept
        }
        for member in members.values { member.group.leave() }
    }
}
