import CheckpointEngine
import CheckpointReference

/// The figures of a benchmark.
struct BenchResult: Encodable, Sendable {
    struct Timing: Encodable, Sendable {
        let seconds: Double
        /// Bytes of the checkpoint in a second.
        let gbPerSecond: Double

        init(_ seconds: Double, _ byteCount: Int) {
            self.seconds = seconds
            gbPerSecond = seconds > 0 ? Double(byteCount) / seconds / 1e9 : 0
        }

        enum CodingKeys: String, CodingKey {
            case seconds
            case gbPerSecond = "gb_per_second"
        }
    }

    let version: String
    let model: String
    let layers: Int
    let tensors: Int
    let files: Int
    let bytes: Int
    let seed: UInt64
    /// `cuda` or `host`.
    let device: String
    let tensorParallel: Int
    let dataParallel: Int
    /// Bytes that all workers hold and that were compared after each update; `nil` without a
    /// comparison.
    let verifiedBytes: Int?
    let registration: Timing
    let first: Timing
    /// Of the updates after the first one; `nil` when there is none.
    let median: Timing?
    let best: Timing?
    /// Seconds of each stage, the median of the updates after the first one.
    let stages: [String: Double]
    let ring: UpdateStatus.Ring?
    let buckets: Int
    /// All updates in full.
    let updates: [UpdateStatus]

    private let stageNames: [String]

    enum CodingKeys: String, CodingKey {
        case version, model, layers, tensors, files, bytes, seed, device, registration, first
        case median, best, stages, ring, buckets, updates
        case tensorParallel = "tensor_parallel"
        case dataParallel = "data_parallel"
        case verifiedBytes = "verified_bytes"
    }

    init(
        _ order: BenchOrder, _ checkpoint: CheckpointSummary, _ updates: [UpdateStatus],
        device: String, comparedBytes: Int
    ) {
        let bytes = checkpoint.bytes
        let later = updates.count > 1 ? Array(updates.dropFirst()) : updates
        let seconds = updates.dropFirst().map(\.seconds)
        version = Version.current
        model = order.model.rawValue
        layers = order.layers
        tensors = checkpoint.tensors
        files = checkpoint.files
        self.bytes = bytes
        seed = order.seed
        self.device = device
        tensorParallel = order.tensorParallel
        dataParallel = order.dataParallel
        verifiedBytes = order.verifies ? comparedBytes : nil
        registration = Timing(checkpoint.registerSeconds, bytes)
        first = Timing(updates.first?.seconds ?? 0, bytes)
        median = Self.median(seconds).map { Timing($0, bytes) }
        best = seconds.min().map { Timing($0, bytes) }
        let names = UpdateStatus.Stage.allCases.map(\.rawValue)
        stages = names.reduce(into: [:]) { stages, name in
            stages[name] = Self.median(
                later.flatMap(\.stages).filter { $0.stage.rawValue == name }.map(\.seconds))
        }
        stageNames = names
        ring = updates.last?.ring
        buckets = updates.last?.buckets ?? 0
        self.updates = updates
    }

    private static func median(_ values: [Double]) -> Double? {
        guard !values.isEmpty else { return nil }
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1
            ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}

extension BenchResult {
    /// What standard output gets.
    var text: String {
        var rows = [["step", "seconds", "GB/s"], row("register", registration)]
        rows.append(row("first update", first))
        if let median { rows.append(row("later updates, median", median)) }
        if let best { rows.append(row("later updates, best", best)) }
        for name in stageNames {
            guard let seconds = stages[name] else { continue }
            rows.append(["  \(name)", TextFormat.fixed(seconds, 4), ""])
        }
        return heading + "\n\n" + TextFormat.table(rows, right: [1, 2]) + "\n" + ending
    }

    private var heading: String {
        "\(model), \(layers) layers: \(tensors) tensors, \(TextFormat.bytes(bytes)) in \(files) "
            + "files; \(dataParallel) \(dataParallel == 1 ? "engine" : "engines") of "
            + "\(tensorParallel) workers on \(device)"
    }

    private var ending: String {
        var lines: [String] = []
        if let ring {
            lines.append(
                "ring: \(TextFormat.bytes(ring.bytes)) on each GPU, \(buckets) buckets of up to "
                    + TextFormat.bytes(ring.bucketBytes))
        } else {
            lines.append("\(buckets) buckets")
        }
        lines.append(
            verifiedBytes.map {
                "every byte was right after each update: \(TextFormat.bytes($0)) in all workers"
            } ?? "nothing was compared")
        return lines.joined(separator: "\n") + "\n"
    }

    private func row(_ name: String, _ timing: Timing) -> [String] {
        [name, TextFormat.fixed(timing.seconds, 4), TextFormat.fixed(timing.gbPerSecond, 2)]
    }
}
