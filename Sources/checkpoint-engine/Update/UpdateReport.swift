import CheckpointEngine

/// The summary that `update` prints.
enum UpdateReport {
    static func text(_ status: UpdateStatus, _ checkpoint: CheckpointSummary) -> String {
        let seconds = TextFormat.fixed(status.seconds, 2)
        var text =
            "\(status.checkpoint): \(status.state.rawValue) in \(seconds) s, "
            + "\(status.tensors) tensors, \(TextFormat.bytes(status.bytes)), "
            + "\(status.workers.count) workers\n\n"
        text += TextFormat.table(stages(status, checkpoint), right: [1, 2, 3])
        if !status.workers.isEmpty {
            text += "\n" + TextFormat.table(workers(status), right: [1, 3, 4, 5])
        }
        return text
    }

    private static func stages(
        _ status: UpdateStatus, _ checkpoint: CheckpointSummary
    ) -> [[String]] {
        var rows = [
            ["stage", "seconds", "bytes", "GB/s"],
            row("register", checkpoint.registerSeconds, checkpoint.bytes),
        ]
        for stage in status.stages {
            rows.append(row(stage.stage.rawValue, stage.seconds, stage.bytes))
        }
        let delivered = status.workers.reduce(0) { $0 + $1.loadedBytes }
        rows.append(row("update", status.seconds, delivered))
        return rows
    }

    private static func row(_ name: String, _ seconds: Double, _ bytes: Int) -> [String] {
        [
            name, TextFormat.fixed(seconds, 3), bytes > 0 ? TextFormat.bytes(bytes) : "",
            TextFormat.rate(bytes, seconds),
        ]
    }

    private static func workers(_ status: UpdateStatus) -> [[String]] {
        var rows = [["worker", "pid", "engine", "loaded", "seconds", "GB/s", "committed"]]
        for worker in status.workers {
            rows.append([
                worker.id, worker.pid > 0 ? "\(worker.pid)" : "", worker.engine,
                TextFormat.bytes(worker.loadedBytes), TextFormat.fixed(worker.loadSeconds, 3),
                TextFormat.rate(worker.loadedBytes, worker.loadSeconds),
                worker.committed ? "yes" : "no",
            ])
        }
        return rows
    }
}
