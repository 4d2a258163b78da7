import CheckpointReference

/// Everything that one run of `bench` was told.
struct BenchOrder: Sendable {
    let model: ModelShapes.Model
    let layers: Int
    let tensorParallel: Int
    let dataParallel: Int
    let updates: Int
    let directory: String
    let seed: UInt64
    let jsonFile: OutputFile?
    let traceFile: OutputFile?
    let verifies: Bool

    var workerCount: Int { tensorParallel * dataParallel }
}
