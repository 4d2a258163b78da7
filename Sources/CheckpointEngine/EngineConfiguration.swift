public import CheckpointFiles
public import CheckpointHosts

/// Everything that a ``CheckpointEngine`` is told at its start; built once, in `main`.
public struct EngineConfiguration: Hashable, Sendable {
    /// Where the pool's files lie: a directory on a tmpfs.
    public let sharedMemoryDirectory: String
    /// Where the directory for worker sockets is made.
    public let runtimeDirectory: String
    /// The most bytes that checkpoints may take in shared memory; `nil` takes what the file system
    /// and the machine have.
    public let memoryByteCountMax: Int?
    /// Threads that read files; `nil` chooses by the number of cores.
    public let readThreadCount: Int?
    /// Bucket size for reloads; on GPUs half of the ring that buckets follow one another in.
    public let bucketByteCountMax: Int
    /// Names and paths of ZeroMQ's library, tried in this order.
    public let zeroMQLibraryNames: [String]
    /// Ended updates that are remembered.
    public let updateHistoryCountMax: Int

    /// How GPUs are used.
    public let gpu: GPUConfiguration
    /// The other hosts that update together with this one; `nil` updates alone.
    public let hosts: HostGroupConfiguration?
    /// What engines are sent as a bearer token; `nil` sends none.
    public let engineToken: String?
    /// How bytes are exchanged with other hosts.
    public let pull: PullConfiguration
    /// Where the files of checkpoints may lie.
    public let fileRoots: FileRoots

    public static let bucketByteCountDefault = 512 << 20
    public static let updateHistoryCountDefault = 256
    public static let zeroMQLibraryNamesDefault = ["libzmq.so.5", "libzmq.so"]

    public init(
        sharedMemoryDirectory: String = "/dev/shm", runtimeDirectory: String = "/tmp",
        memoryByteCountMax: Int? = nil, readThreadCount: Int? = nil,
        bucketByteCountMax: Int = Self.bucketByteCountDefault,
        zeroMQLibraryNames: [String] = Self.zeroMQLibraryNamesDefault,
        updateHistoryCountMax: Int = Self.updateHistoryCountDefault,
        gpu: GPUConfiguration = GPUConfiguration(device: .host),
        hosts: HostGroupConfiguration? = nil, engineToken: String? = nil,
        pull: PullConfiguration = PullConfiguration(), fileRoots: FileRoots = .everywhere
    ) {
        self.sharedMemoryDirectory = sharedMemoryDirectory
        self.runtimeDirectory = runtimeDirectory
        self.memoryByteCountMax = memoryByteCountMax
        self.readThreadCount = readThreadCount
        self.bucketByteCountMax = bucketByteCountMax
        self.zeroMQLibraryNames = zeroMQLibraryNames
        self.updateHistoryCountMax = updateHistoryCountMax
        self.gpu = gpu
        self.hosts = hosts
        self.engineToken = engineToken
        self.pull = pull
        self.fileRoots = fileRoots
    }
}
