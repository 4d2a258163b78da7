import Subprocess
import Synchronization
import SystemPackage

/// A child process that runs `reference-worker`, and the queue of things for it to do. A child that
/// has ended is replaced by the next one.
final class ReferenceWorkerProcess: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private typealias Request = (line: String, answer: CheckedContinuation<String, Never>)

    private static let endGrace = Duration.seconds(3)

    let rank: Int
    private let arguments: [String]
    private let requests: AsyncStream<Request>
    private let continuation: AsyncStream<Request>.Continuation
    private let isStopped = Atomic(false)

    init(
        rank: Int, worldSize: Int, memoryPath: String, device: ReferenceDevice,
        zeroMQLibraryNames: [String]
    ) {
        self.rank = rank
        self.arguments =
            [
                "reference-worker", "--rank", "\(rank)", "--world-size", "\(worldSize)",
                "--memory", memoryPath,
            ] + device.arguments(rank: rank)
            + zeroMQLibraryNames.flatMap { ["--zmq-library", $0] }
        (self.requests, self.continuation) = AsyncStream.makeStream(of: Request.self)
    }

    /// Runs children until ``stop()``, or until the task is cancelled. A child ends by itself then, so
    /// that it cleans up, and is killed when it does not.
    func run() async throws {
        defer { refuseAll() }
        let children = Task { try await runChildren() }
        try await withTaskCancellationHandler {
            try await children.value
        } onCancel: {
            stop()
            Task {
                try? await Task.sleep(for: Self.endGrace)
                children.cancel()
            }
        }
    }

    private func runChildren() async throws {
        // A child's end is noticed by a request, so that one that cannot start is not tried in a loop.
        while !isStopped.load(ordering: .acquiring), !Task.isCancelled { try await runChild() }
    }

    private func runChild() async throws {
        _ = try await Subprocess.run(
            .path("/proc/self/exe"), arguments: Arguments(arguments), input: .inputWriter,
            output: .sequence,
            error: .fileDescriptor(.standardError, closeAfterSpawningProcess: false)
        ) { execution in
            var answers = execution.standardOutput.strings().makeAsyncIterator()
            for await request in requests {
                _ = try? await execution.standardInputWriter.write(request.line + "\n")
                let answer = try? await answers.next()
                request.answer.resume(returning: answer ?? "error worker \(rank) has ended")
                if answer == nil { break }
            }
            try? await execution.standardInputWriter.finish()
        }
    }

    /// Asks the child; throws when it answers with an error.
    @discardableResult
    func ask(_ line: String) async throws(Failure) -> String {
        let answer = await withCheckedContinuation { answer in
            if case .terminated = continuation.yield((line, answer)) {
                answer.resume(returning: "error worker \(rank) has ended")
            }
        }
        guard answer == "ok" || answer.hasPrefix("ok ") else {
            throw Failure(description: "worker \(rank): \(answer)")
        }
        return String(answer.dropFirst(3))
    }

    /// Closes the child's standard input, so that it ends.
    func stop() {
        isStopped.store(true, ordering: .releasing)
        continuation.finish()
    }

    private func refuseAll() {
        stop()
        Task { [requests, rank] in
            for await request in requests {
                request.answer.resume(returning: "error worker \(rank) has ended")
            }
        }
    }
}
