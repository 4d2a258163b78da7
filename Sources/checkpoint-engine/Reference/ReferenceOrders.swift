import CheckpointFiles
import CheckpointModel
import CheckpointWorker
import Glibc

/// What a reference worker is asked to do, a line each; the answer is `ok`, `ok VALUE` or
/// `error REASON`.
///
/// | line | does |
/// | --- | --- |
/// | `id` | tells the worker's name in updates |
/// | `pid` | tells its process |
/// | `update ADDRESS` | takes an update |
/// | `fill BYTE` | overwrites all parameters |
/// | `verify THREADS PATH` | compares all parameters with a checkpoint; tells the bytes |
/// | `fault KIND STEP` | the next update meets a fault: `kill`, `raise`, `pause` (2 s) or `hang` at `hello`, `catalog`, `bucket-3`, `release` or `commit` |
/// | `memcpy BYTES` | copies so much with one plain copy; tells the seconds |
final class ReferenceOrders {
    private static let namesMax = 5
    private static let pauseSeconds: CUnsignedInt = 2
    /// Ends a hang that nobody ends.
    private static let hangSeconds: CUnsignedInt = 600

    private let name: String
    private let scratchPath: String
    private let memory: any ReferenceTarget
    private let worker: ReferenceWorker
    private var fault: (kind: String, step: String)?

    init(
        name: String, scratchPath: String, memory: any ReferenceTarget, worker: ReferenceWorker
    ) {
        self.name = name
        self.scratchPath = scratchPath
        self.memory = memory
        self.worker = worker
    }

    func answer(_ line: String) -> String {
        let words = line.split(separator: " ", maxSplits: 2).map(String.init)
        do {
            return try "ok \(carryOut(words))"
        } catch {
            let reason = (error as? WorkerError)?.message ?? "\(error)"
            return "error " + reason.split(separator: "\n").joined(separator: " ")
        }
    }

    private func carryOut(_ words: [String]) throws -> String {
        switch (words.first, words.count) {
        case ("id", 1): return name
        case ("pid", 1): return "\(getpid())"
        case ("update", 2):
            let fault = fault
            self.fault = nil
            try worker.run(address: words[1]) { step throws(WorkerError) in
                try Self.meet(fault, at: step)
            }
            return ""
        case ("fill", 2):
            guard let byte = UInt8(words[1]) else { break }
            try memory.fill(byte)
            return ""
        case ("verify", 3):
            guard let threadCount = Int(words[1]), threadCount > 0 else { break }
            return try "\(verify(words[2], threadCount: threadCount))"
        case ("fault", 3):
            fault = (words[1], words[2])
            return ""
        case ("memcpy", 2):
            guard let byteCount = Int(words[1]) else { break }
            return try "\(PlainCopy.seconds(byteCount: byteCount, scratchPath: scratchPath))"
        default: break
        }
        throw WorkerError(.invalidArgument, "the request \(words) is none that a worker knows")
    }

    /// Compares the parameters with the files; returns the bytes, throws when one differs.
    private func verify(_ path: String, threadCount: Int) throws -> Int {
        let source = try CheckpointSource.open(paths: [path])
        let files = try source.shards.map {
            try MappedFile(reading: $0.path, inode: $0.inode, byteCount: $0.byteCount)
        }
        var places: [ExactString: (file: Int, offset: Int)] = [:]
        for tensor in source.catalog.tensors {
            places[ExactString(tensor.name)] = (
                tensor.shard, source.shards[tensor.shard].dataOffset + tensor.range.offset
            )
        }
        let comparison = try ReferenceComparison(
            memory, ReferenceFiles(files, places: places), threadCount: threadCount)
        guard comparison.different.isEmpty else {
            throw WorkerError(
                .workerFailed,
                "\(comparison.different.count) tensors differ: "
                    + comparison.different.prefix(Self.namesMax).joined(separator: ", "))
        }
        return comparison.byteCount
    }

    private static func meet(
        _ fault: (kind: String, step: String)?, at step: ReferenceWorker.Step
    ) throws(WorkerError) {
        guard let fault, fault.step == name(step) else { return }
        switch fault.kind {
        case "kill": kill(getpid(), SIGKILL)
        case "pause": sleep(pauseSeconds)
        case "hang": sleep(hangSeconds)
        default: throw WorkerError(.workerFailed, "the worker refuses at \(fault.step)")
        }
    }

    private static func name(_ step: ReferenceWorker.Step) -> String {
        switch step {
        case .hello: "hello"
        case .catalog: "catalog"
        case .bucket(let index): "bucket-\(index)"
        case .release: "release"
        case .commit: "commit"
        }
    }
}
