import CheckpointEngine

/// The text of `GET /metrics`.
///
/// Source: the Prometheus text exposition format, version 0.0.4.
enum MetricsText {
    static let mediaType = "text/plain; version=0.0.4; charset=utf-8"

    static func render(_ statistics: EngineStatistics, version: String) -> String {
        var text = MetricsWriter()
        text.gauge(
            "build_info", "The version of the daemon; always 1.", labels: [("version", version)], 1)
        memory(statistics, &text)
        registrations(statistics, &text)
        pulls(statistics, &text)
        updates(statistics, &text)
        return text.text
    }

    private static func memory(_ statistics: EngineStatistics, _ text: inout MetricsWriter) {
        text.gauge("checkpoints", "Registered checkpoints.", statistics.checkpoints)
        text.gauge(
            "pooled_bytes", "Shared memory of the pool that checkpoints use.",
            statistics.pooledBytes)
        text.gauge(
            "retained_bytes", "Shared memory of the pool that is kept for the next version.",
            statistics.retainedBytes)
        text.gauge(
            "in_place_bytes", "Files in shared memory that are used where they lie.",
            statistics.inPlaceBytes)
        text.gauge(
            "pinned_bytes", "Shared memory that is pinned for GPUs.", statistics.pinnedBytes)
        text.gauge(
            "gpu_bytes", "GPU memory that is kept between updates.", statistics.gpuBytes)
    }

    private static func registrations(
        _ statistics: EngineStatistics, _ text: inout MetricsWriter
    ) {
        text.counter("registrations_total", "Checkpoints registered.", statistics.registrations)
        text.counter(
            "registration_failures_total", "Registrations that failed.",
            statistics.registrationFailures)
        text.counter(
            "registered_bytes_total", "Bytes of registered checkpoints.",
            statistics.registeredBytes)
        text.counter(
            "register_seconds_total", "Time spent registering checkpoints.",
            statistics.registerSeconds)
    }

    private static func pulls(_ statistics: EngineStatistics, _ text: inout MetricsWriter) {
        text.counter("pulls_total", "Checkpoints read from other hosts.", statistics.pulls)
        text.counter(
            "pull_failures_total", "Reads from other hosts that failed.", statistics.pullFailures)
        text.counter(
            "pulled_bytes_total", "Bytes of checkpoints read from other hosts.",
            statistics.pulledBytes)
        text.counter(
            "pull_seconds_total", "Time spent reading checkpoints from other hosts.",
            statistics.pullSeconds)
        text.gauge("leases", "Leases that readers of this host have now.", statistics.leases)
        text.counter(
            "leases_begun_total", "Leases that readers of this host have had.",
            statistics.leasesBegun)
    }

    private static func updates(_ statistics: EngineStatistics, _ text: inout MetricsWriter) {
        text.gauge("updates_running", "Updates that run now.", statistics.updatesRunning)
        text.counter(
            "updates_succeeded_total", "Updates that every worker committed.",
            statistics.updatesSucceeded)
        // Every known code from the start: a series that appears late hides its first increase.
        let codes = Set(EngineError.Code.allCases.map(\.rawValue))
            .union(statistics.updatesFailed.keys)
        text.family(
            "updates_failed_total", .counter, "Updates that failed, by error code.",
            codes.sorted().map {
                ([("code", $0)], "\(statistics.updatesFailed[$0] ?? 0)")
            })
        text.counter(
            "delivered_bytes_total", "Bytes that workers loaded, once for each worker.",
            statistics.deliveredBytes)
        text.counter(
            "update_seconds_total", "Time spent in updates.", statistics.updateSeconds)
        if let seconds = statistics.lastUpdateSeconds {
            text.gauge(
                "last_update_seconds", "Duration of the last successful update.", seconds)
        }
        text.family(
            "stage_seconds_total", .counter, "Time spent in each stage of updates.",
            UpdateStatus.Stage.allCases.map {
                ([("stage", $0.rawValue)], "\(statistics.stageSeconds[$0] ?? 0)")
            })
    }
}
