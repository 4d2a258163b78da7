import ArgumentParser
import CheckpointDevice
import CheckpointModel
import CheckpointReference
import CheckpointWorker
import Glibc

/// One process of the reference engine: reads a line for each thing to do, answers with a line. It
/// ends with its standard input.
struct ReferenceWorkerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reference-worker", abstract: "One worker of the reference engine.",
        shouldDisplay: false)

    @Option var rank: Int
    @Option var worldSize: Int
    @Option(help: "The file of the parameters, with the device host.") var memory: String
    @Option var device = ReferenceDevice.Kind.host
    @Option(help: "The GPU of the parameters, as this process numbers them.") var gpu = 0
    @Option var zmqLibrary: [String] = []
    @Option var cudaLibrary: [String] = []

    func run() throws {
        let context = try ZeroMQContext(libraryNames: zmqLibrary)
        let (id, target) = try target()
        let orders = ReferenceOrders(
            name: id.description, scratchPath: "\(memory).copy-\(rank)", memory: target,
            worker: ReferenceWorker(id: id, memory: target, context: context))
        while true {
            guard Self.hasInput(milliseconds: 1000) else {
                target.dropStale()
                continue
            }
            guard let line = readLine() else { return }
            try Terminal.standardOutput.print(orders.answer(line) + "\n")
        }
    }

    private func target() throws -> (DeviceID, any ReferenceTarget) {
        switch device {
        case .host:
            return (
                .cpu(rank: rank), ReferenceMemory(path: memory, rank: rank, worldSize: worldSize)
            )
        case .cuda:
            let names = cudaLibrary.isEmpty ? CudaTable.libraryNamesDefault : cudaLibrary
            let driver = try CudaDriver(table: CudaTable(libraryNames: names))
            let memory = try DeviceReferenceMemory(
                driver, index: gpu, rank: rank, worldSize: worldSize)
            return (memory.id, memory)
        }
    }

    /// Waits for a line or the end of standard input. Lines come one at a time, each after the answer to
    /// the one before, so that none waits in `readLine`'s buffer.
    private static func hasInput(milliseconds: CInt) -> Bool {
        var item = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
        // SAFETY: one item is passed, which outlives the call.
        return unsafe poll(&item, 1, milliseconds) > 0
    }
}
