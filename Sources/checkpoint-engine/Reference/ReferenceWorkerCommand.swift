import ArgumentParser
import CheckpointModel
import CheckpointWorker
import Glibc

/// One process of the reference engine: reads a line for each thing to do, answers with a line.
///
/// `update ADDRESS` takes an update and answers `ok` or `error REASON`; `memcpy BYTES` copies that
/// much with one plain copy and answers `ok SECONDS`. It ends with its standard input.
struct ReferenceWorkerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reference-worker", abstract: "One worker of the reference engine.",
        shouldDisplay: false)

    @Option var rank: Int
    @Option var worldSize: Int
    @Option var memory: String
    @Option var zmqLibrary: [String] = []

    func run() throws {
        let context = try ZeroMQContext(libraryNames: zmqLibrary)
        let memory = ReferenceMemory(path: memory, rank: rank, worldSize: worldSize)
        let worker = ReferenceWorker(id: .cpu(rank: rank), memory: memory, context: context)
        while true {
            guard Self.hasInput(milliseconds: 1000) else {
                memory.dropStale()
                continue
            }
            guard let line = readLine() else { return }
            Terminal.standardOutput.write(answer(line, worker) + "\n")
        }
    }

    /// Waits for a line or the end of standard input. Lines come one at a time, each after the answer to
    /// the one before, so that none waits in `readLine`'s buffer.
    private static func hasInput(milliseconds: CInt) -> Bool {
        var item = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
        // SAFETY: one item is passed, which outlives the call.
        return unsafe poll(&item, 1, milliseconds) > 0
    }

    private func answer(_ line: String, _ worker: ReferenceWorker) -> String {
        let words = line.split(separator: " ", maxSplits: 1).map(String.init)
        do throws(WorkerError) {
            switch (words.first, words.last.flatMap(Int.init)) {
            case ("update", _) where words.count == 2:
                try worker.run(address: words[1])
                return "ok"
            case ("memcpy", let byteCount?):
                let path = "\(memory).copy-\(rank)"
                return "ok \(try PlainCopy.seconds(byteCount: byteCount, scratchPath: path))"
            default:
                return "error the request \(line) is none that a worker knows"
            }
        } catch {
            return "error " + error.message.split(separator: "\n").joined(separator: " ")
        }
    }
}
