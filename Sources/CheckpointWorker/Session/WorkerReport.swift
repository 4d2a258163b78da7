/// How far one worker of an update is.
public struct WorkerReport: Hashable, Sendable {
    /// What the worker said of itself; `nil` before its hello.
    public internal(set) var hello: WorkerHello?
    public internal(set) var loadedByteCount = 0
    /// Time that the worker spent loading buckets and committing, by its own clock.
    public internal(set) var loadDuration = Duration.zero
    public internal(set) var commitDuration = Duration.zero
    public internal(set) var isCommitted = false
    /// Whether it speaks the known protocol.
    public internal(set) var isKnown = false
}

/// The steps of a session, in order.
public enum SessionStage: Int, Comparable, Hashable, Sendable, CaseIterable {
    case handshake, catalog, reload, release, commit

    public static func < (left: SessionStage, right: SessionStage) -> Bool {
        left.rawValue < right.rawValue
    }
}

/// How far a session is: the slowest worker decides the stage.
public struct SessionProgress: Hashable, Sendable {
    public internal(set) var stage: SessionStage
    public internal(set) var workers: [WorkerReport]
    /// When each stage began, in the order in which they did.
    public internal(set) var stageStarts: [(stage: SessionStage, at: ContinuousClock.Instant)]

    public static func == (left: SessionProgress, right: SessionProgress) -> Bool {
        left.stage == right.stage && left.workers == right.workers
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(stage)
        hasher.combine(workers)
    }
}
