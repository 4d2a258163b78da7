import ArgumentParser

/// Where the workers of a reference engine keep their parameters.
enum ReferenceDevice: Sendable {
    case host
    /// One GPU for each worker, and CUDA's libraries.
    case cuda(gpus: [Int], libraryNames: [String])

    /// The name of the worker `rank` in updates begins with it.
    enum Kind: String, CommandValue, CaseIterable {
        case host, cuda
    }

    /// What a worker's process is told.
    func arguments(rank: Int) -> [String] {
        switch self {
        case .host: ["--device", Kind.host.rawValue]
        case .cuda(let gpus, let libraryNames):
            ["--device", Kind.cuda.rawValue, "--gpu", "\(gpus[rank])"]
                + libraryNames.flatMap { ["--cuda-library", $0] }
        }
    }
}
