import CheckpointDevice

/// How GPUs are used; part of ``EngineConfiguration``.
public struct GPUConfiguration: Hashable, Sendable {
    /// Which engines this process updates.
    public enum Device: String, Hashable, Sendable, CaseIterable {
        /// Those on GPUs where the process sees one, else those on the CPU.
        case auto
        case cuda
        case host
    }

    /// How the shares of a bucket come from GPU to GPU on one host.
    public enum Exchange: String, Hashable, Sendable, CaseIterable {
        /// Copies between GPUs that reach each other.
        case peer
        case nccl
    }

    public var device: Device
    public var exchange: Exchange
    /// Names and paths of CUDA's driver library, tried in this order.
    public var cudaLibraryNames: [String]
    /// Names and paths of NCCL's library, tried in this order.
    public var ncclLibraryNames: [String]
    /// Whether rings and communicators are given back after each update.
    public var releasesMemory: Bool
    /// Threads that pin memory; `nil` chooses by the number of cores.
    public var pinThreadCount: Int?

    public static let cudaLibraryNamesDefault = CudaTable.libraryNamesDefault
    public static let ncclLibraryNamesDefault = ["libnccl.so.2", "libnccl.so"]

    public init(
        device: Device = .auto, exchange: Exchange = .peer,
        cudaLibraryNames: [String] = Self.cudaLibraryNamesDefault,
        ncclLibraryNames: [String] = Self.ncclLibraryNamesDefault,
        releasesMemory: Bool = false, pinThreadCount: Int? = nil
    ) {
        self.device = device
        self.exchange = exchange
        self.cudaLibraryNames = cudaLibraryNames
        self.ncclLibraryNames = ncclLibraryNames
        self.releasesMemory = releasesMemory
        self.pinThreadCount = pinThreadCount
    }
}
