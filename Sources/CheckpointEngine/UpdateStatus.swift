public import CheckpointModel

/// What the engine tells about one update, running or ended.
public struct UpdateStatus: Codable, Hashable, Sendable {
    public enum State: String, Codable, Sendable {
        case running, succeeded, failed
    }

    /// The step that the update is in, or ended in.
    public enum Stage: String, Codable, Sendable, CaseIterable {
        /// The engines' requests are held, and sleeping engines woken up, where that was asked for.
        case pause
        /// The engines are asked to start, their workers connect and say hello.
        case handshake
        /// The catalog is exchanged and mapped.
        case catalog
        /// Buckets are loaded by the workers.
        case reload
        /// The workers let go of shared memory.
        case release
        /// The workers finish the load.
        case commit
        /// Engines with a model that drafts take everything once more for it.
        case draft
        /// The engines answer, caches are reset.
        case finish
        /// Engines that were paused go on.
        case resume
    }

    public struct Worker: Codable, Hashable, Sendable {
        /// `CPU-0`, `GPU-…`.
        public let id: String
        /// The URL of its engine.
        public let engine: String
        /// Zero before its hello.
        public let pid: Int
        public let software: String
        public let loadedBytes: Int
        public let committed: Bool
        /// Time that the worker itself spent loading, in seconds.
        public let loadSeconds: Double

        enum CodingKeys: String, CodingKey {
            case id, engine, pid, software, committed
            case loadedBytes = "loaded_bytes"
            case loadSeconds = "load_seconds"
        }

        public init(
            id: String, engine: String, pid: Int, software: String, loadedBytes: Int,
            committed: Bool, loadSeconds: Double
        ) {
            self.id = id
            self.engine = engine
            self.pid = pid
            self.software = software
            self.loadedBytes = loadedBytes
            self.committed = committed
            self.loadSeconds = loadSeconds
        }
    }

    public struct Failure: Codable, Hashable, Sendable {
        public let code: String
        public let message: String
        public let cause: String?
        public init(code: String, message: String, cause: String?) {
            self.code = code
            self.message = message
            self.cause = cause
        }
    }

    public struct StageTime: Codable, Hashable, Sendable {
        public let stage: Stage
        /// Seconds from the start of the update.
        public let start: Double
        public let seconds: Double
        /// Bytes that the stage handled: once for each worker.
        public let bytes: Int

        public init(stage: Stage, start: Double, seconds: Double, bytes: Int) {
            self.stage = stage
            self.start = start
            self.seconds = seconds
            self.bytes = bytes
        }
    }

    /// How the memory of GPUs was used.
    public struct Ring: Codable, Hashable, Sendable {
        /// Bytes that were taken on each GPU.
        public let bytes: Int
        /// Bytes that buckets were filled to.
        public let bucketBytes: Int
        /// The ids of the GPUs, in the order of the workers.
        public let gpus: [String]

        enum CodingKeys: String, CodingKey {
            case bytes, gpus
            case bucketBytes = "bucket_bytes"
        }

        public init(bytes: Int, bucketBytes: Int, gpus: [String]) {
            self.bytes = bytes
            self.bucketBytes = bucketBytes
            self.gpus = gpus
        }
    }

    /// What was done to the engines around the delivery.
    public struct Control: Codable, Hashable, Sendable {
        public let pause: PauseMode?
        /// From the first call of the pause to the last one's end of it, or to the end of the update.
        public let pausedSeconds: Double?
        /// Engines that were paused and are not told to go on: all until the end, none after success.
        public let stillPaused: [String]
        /// Engines whose memory was taken back.
        public let woken: [String]
        public let weightVersion: String?

        enum CodingKeys: String, CodingKey {
            case pause, woken
            case pausedSeconds = "paused_seconds"
            case stillPaused = "still_paused"
            case weightVersion = "weight_version"
        }
    }

    public let id: String
    public let checkpoint: String
    public var state: State
    public var stage: Stage
    /// Bytes of the checkpoint.
    public var bytes: Int
    public var tensors: Int
    public var buckets: Int
    /// Bytes that every worker has loaded: the slowest worker's count.
    public var loadedBytes: Int
    public var seconds: Double
    public var stages: [StageTime]
    public var workers: [Worker]
    /// `nil` for engines on the CPU.
    public var ring: Ring?
    /// How often everything was delivered: more than once to engines with a model that drafts.
    public var sessions = 1
    /// `nil` where nothing was asked for.
    public var control: Control?
    public var error: Failure?

    enum CodingKeys: String, CodingKey {
        case id, checkpoint, state, stage, bytes, tensors, buckets, seconds, stages, workers, ring
        case error, sessions, control
        case loadedBytes = "loaded_bytes"
    }

    public init(
        id: String, checkpoint: String, state: State, stage: Stage, bytes: Int, tensors: Int,
        buckets: Int, loadedBytes: Int, seconds: Double, stages: [StageTime], workers: [Worker],
        error: Failure?
    ) {
        self.id = id
        self.checkpoint = checkpoint
        self.state = state
        self.stage = stage
        self.bytes = bytes
        self.tensors = tensors
        self.buckets = buckets
        self.loadedBytes = loadedBytes
        self.seconds = seconds
        self.stages = stages
        self.workers = workers
        self.error = error
    }
}
