import CheckpointNative
import Glibc
import Logging

/// Ends this process with the one that it belongs to.
enum OwnerWatch {
    private static let interval = Duration.milliseconds(250)

    /// Sends this process SIGTERM when the process `id` has ended.
    static func start(_ id: pid_t, _ logger: Logger) throws {
        guard let start = ProcessLife.start(of: id) else {
            throw CommandError("there is no process \(id) to run for ('--until-exit-of')")
        }
        Task {
            while ProcessLife.start(of: id) == start { try await Task.sleep(for: interval) }
            logger.notice(
                "The process that this daemon runs for has ended", metadata: ["pid": "\(id)"])
            kill(getpid(), SIGTERM)
        }
    }
}
