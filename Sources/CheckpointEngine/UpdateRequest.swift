public import CheckpointModel
import CheckpointWorker

/// One engine instance that an update is for: an HTTP server with its workers.
public struct EngineInstance: Hashable, Sendable {
    /// Where the engine is, with or without the path that starts the reload, for vLLM
    /// `http://HOST:PORT/collective_rpc`. What precedes that path is a part of all calls.
    public let updateURL: HTTPURL
    /// The unix socket that the engine's HTTP server listens on, instead of the URL's host and port.
    public let unixSocketPath: String?
    /// How many workers the instance has; `nil` asks the engine.
    public let workerCount: Int?
    /// The GPUs of the instance's workers, as the daemon numbers those that it sees; `nil` takes the next
    /// ones. Without meaning for workers on the CPU.
    public let ranks: [Int]?
    public let kind: EngineKind

    public init(
        updateURL: HTTPURL, unixSocketPath: String? = nil, workerCount: Int? = nil,
        ranks: [Int]? = nil, kind: EngineKind = .vllm
    ) {
        self.updateURL = updateURL
        self.unixSocketPath = unixSocketPath
        self.workerCount = workerCount
        self.ranks = ranks
        self.kind = kind
    }

    /// The GPUs that are named; an empty list names none.
    var namedRanks: [Int]? { ranks.flatMap { $0.isEmpty ? nil : $0 } }

    func checkCounts() throws(EngineError) {
        if let count = workerCount ?? namedRanks?.count, !(1...4096).contains(count) {
            throw EngineError(
                .invalidArgument,
                "\(updateURL) cannot have \(count) workers; 1 to 4096 are possible")
        }
        if let workerCount, let namedRanks, workerCount != namedRanks.count {
            throw EngineError(
                .invalidArgument,
                "\(updateURL) has \(workerCount) workers, but \(namedRanks.count) GPUs are named")
        }
    }
}

/// What an update is asked to do.
public struct UpdateRequest: Hashable, Sendable {
    public static let timeoutSecondsDefault = 300.0
    /// More workers have no place on one host.
    public static let workerCountMax = 4096
    /// A day: more is a mistake.
    public static let timeoutSecondsMax = 86_400.0

    public let instances: [EngineInstance]
    /// The deadline of the whole update, in seconds from its start.
    public let timeoutSeconds: Double
    /// Whether the engines' prefix caches are reset after the commit.
    public let resetsPrefixCache: Bool
    /// What becomes of the engines' requests meanwhile; `nil` leaves them alone. Engines go on when the
    /// whole update has succeeded, and stay paused when it has failed and touched their weights.
    public let pause: PauseMode?
    /// What the engines call the new weights; `nil` leaves the name.
    public let weightVersion: String?
    /// Whether sleeping engines are woken up: their weights before the update, the rest after it.
    public let wakes: Bool

    /// The GPU, as the daemon numbers those that it sees, that sends the weights by vLLM's own weight
    /// transfer; `nil` goes through the worker extension. No engine may run on it: NCCL takes no GPU twice.
    public let nativeSender: Int?

    public static let weightVersionByteCountMax = 256

    public init(
        instances: [EngineInstance], timeoutSeconds: Double = Self.timeoutSecondsDefault,
        resetsPrefixCache: Bool = true, pause: PauseMode? = nil, weightVersion: String? = nil,
        wakes: Bool = false, nativeSender: Int? = nil
    ) {
        self.instances = instances
        self.timeoutSeconds = timeoutSeconds
        self.resetsPrefixCache = resetsPrefixCache
        self.pause = pause
        self.weightVersion = weightVersion
        self.wakes = wakes
        self.nativeSender = nativeSender
    }

    var orders: EngineOrders {
        EngineOrders(
            pause: pause, weightVersion: weightVersion, wakes: wakes,
            resetsPrefixCache: resetsPrefixCache)
    }

    func checkVersion() throws(EngineError) {
        guard let weightVersion else { return }
        let isPlain = weightVersion.unicodeScalars.allSatisfy {
            !$0.properties.isWhitespace && $0.value >= 0x20 && $0.value != 0x7f
        }
        guard (1...Self.weightVersionByteCountMax).contains(weightVersion.utf8.count), isPlain
        else {
            throw EngineError(
                .invalidArgument,
                "the weight version has \(weightVersion.utf8.count) bytes: it has to have 1 to "
                    + "\(Self.weightVersionByteCountMax), without spaces and control characters")
        }
    }
}
