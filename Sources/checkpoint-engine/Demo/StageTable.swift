import CheckpointEngine

/// Draws the stages of an update as bars over time.
struct StageTable {
    private static let width = 48
    let status: UpdateStatus

    var lines: [String] {
        let total = max(status.seconds, 1e-9)
        return status.stages.map { stage in
            let first = min(Self.width - 1, Int(stage.start / total * Double(Self.width)))
            let last = Int((stage.start + stage.seconds) / total * Double(Self.width))
            let length = max(1, min(Self.width, last) - first)
            let bar =
                String(repeating: "·", count: first) + String(repeating: "█", count: length)
                + String(repeating: "·", count: max(0, Self.width - first - length))
            let name = stage.stage.rawValue
            let padded = name + String(repeating: " ", count: max(0, 10 - name.count))
            let milliseconds = (stage.seconds * 10_000).rounded() / 10
            return "  \(padded) \(bar) \(milliseconds) ms"
        }
    }
}
