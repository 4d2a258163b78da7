import CheckpointDevice
public import CheckpointTrace
import CheckpointTransport
import CheckpointWorker

extension CheckpointEngine {
    /// What an update did when, on every GPU: of one that has ended, and that is still remembered.
    public func timeline(_ id: String) throws(EngineError) -> Timeline {
        guard let record = history[id] else {
            throw EngineError(.notFound, "there is no update \(id)")
        }
        guard record.status.state != .running else {
            throw EngineError(.busy, "\(id) is running; its timeline is there when it has ended")
        }
        return record.timeline()
    }
}

extension UpdateRecord {
    func timeline() -> Timeline {
        let (status, loads, spans, gpus) = measured
        var timeline: [Timeline.Span] = status.stages.compactMap { stage in
            Self.stage(stage.stage).map { kind in
                Timeline.Span(
                    track: .control, name: stage.stage.rawValue, stage: kind,
                    startSeconds: stage.start, seconds: stage.seconds, byteCount: stage.bytes)
            }
        }
        for span in spans {
            timeline.append(
                Timeline.Span(
                    track: .gpu(span.gpu), name: "bucket \(span.bucket)",
                    stage: span.stage == .stage ? .stage : .gather,
                    startSeconds: start.duration(to: span.start).inSeconds,
                    seconds: span.start.duration(to: span.end).inSeconds,
                    byteCount: span.byteCount))
        }
        for load in loads where load.duration > .zero {
            let track: Timeline.Track =
                gpus.indices.contains(load.worker)
                ? .gpu(gpus[load.worker].device.index)
                : .device(index: load.worker, name: status.workers[load.worker].id)
            timeline.append(
                Timeline.Span(
                    track: track, name: "bucket \(load.bucket)", stage: .reload,
                    startSeconds: start.duration(to: load.end - load.duration).inSeconds,
                    seconds: load.duration.inSeconds, byteCount: load.byteCount))
        }
        return Timeline(title: "\(status.checkpoint), \(status.id)", spans: timeline)
    }

    /// The whole reload stage would hide the lanes of the buckets, so it is not drawn.
    private static func stage(_ stage: UpdateStatus.Stage) -> Timeline.Stage? {
        switch stage {
        case .pause: .pause
        case .handshake: .handshake
        case .catalog: .catalog
        case .release: .release
        case .commit: .commit
        case .draft: .draft
        case .resume: .resume
        case .reload, .finish: nil
        }
    }
}
