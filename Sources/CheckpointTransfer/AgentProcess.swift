import CheckpointModel
import CheckpointNative
import Glibc
import Logging
import Subprocess
import Synchronization
import SystemPackage

/// The child process of an agent and its three pipes. It knows nothing of what the lines say.
final class AgentProcess: Sendable {
    /// How the process ended.
    enum End: Sendable, Hashable {
        /// There is no such program.
        case missing(String)
        case notStarted(String)
        case exited(status: Int)
        case killed(signal: Int)
    }

    private typealias Child = Execution<CustomWriteInput, SequenceOutput, SequenceOutput>

    /// What runs while the process does.
    private enum Part: Sendable {
        case input
        case output
        case errors
        case stop
        case rest
    }

    private struct Control {
        var child: Child?
        var processID: Int32?
        var isKilled = false
        var lastErrors: [String] = []
    }

    /// How long the process may take to end by itself, then after SIGTERM.
    private static let ends: [TeardownStep] = [
        .send(signal: Signal(rawValue: 0), allowedDurationToNextStep: .seconds(2)),
        .send(signal: .terminate, allowedDurationToNextStep: .seconds(1)),
    ]
    /// How long the pipes of a process that has ended are read: a child of its own may hold them.
    private static let restTime = Duration.seconds(1)
    private static let errorLineByteCountMax = 4096
    private static let errorLineCountMax = 20

    /// What the first start of a process takes for good, and the process itself: a library whose threads cannot
    /// be started then starts no process ever.
    private static let threadCount = 4
    private static let descriptorCount = 20

    private let configuration: AgentConfiguration
    private let logger: Logger
    private let control = Mutex(Control())
    private let lines: AsyncStream<[UInt8]>
    private let lineInput: AsyncStream<[UInt8]>.Continuation
    private let stops: AsyncStream<Void>
    private let stopInput: AsyncStream<Void>.Continuation

    init(_ configuration: AgentConfiguration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
        (self.lines, self.lineInput) = AsyncStream.makeStream(of: [UInt8].self)
        (self.stops, self.stopInput) = AsyncStream.makeStream(of: Void.self)
        Self.ignorePipeSignals()
    }

    var processID: Int32? { control.withLock { $0.processID } }

    /// The last lines that the process wrote to its standard error.
    var lastErrors: [String] { control.withLock { $0.lastErrors } }

    /// Writes a line to the process, after those before it. Returns at once.
    func send(_ line: [UInt8]) { lineInput.yield(line) }

    /// Closes the process's standard input, and ends it when that does not. Returns at once.
    func stop() {
        lineInput.finish()
        stopInput.finish()
    }

    /// Kills the process. Returns at once.
    func kill() {
        control.withLock { control in
            control.isKilled = true
            // The child is set only as long as nobody has waited for it, so its id is its own.
            try? control.child?.send(signal: .kill, toProcessGroup: true)
        }
        stop()
    }

    /// Runs the process, and returns when it is gone. `receive` gets what it writes to its standard
    /// output, in order; the process waits when `receive` does.
    func run(_ receive: @escaping @Sendable ([UInt8]) async -> Void) async -> End {
        var options = PlatformOptions()
        // A group of its own: what a terminal sends to the daemon is not for the agent.
        options.processGroupID = 0
        let name = configuration.executable
        let additions = configuration.environment.compactMap { key, value in
            Environment.Key(rawValue: key).map { ($0, Optional(value)) }
        }
        do {
            try BlockingThread.check(count: Self.threadCount)
            let descriptors = try Descriptors.reserve(
                Self.descriptorCount, for: "a transfer agent")
            let result = try await Subprocess.run(
                name.containsExactly("/") ? .path(FilePath(name)) : .name(name),
                arguments: Arguments(configuration.commandLine),
                environment: .inherit.updating(Dictionary(uniqueKeysWithValues: additions)),
                platformOptions: options, input: .inputWriter, output: .sequence,
                error: .sequence
            ) { child in
                descriptors.reduce(to: 0)
                begin(child)
                await serve(child, receive)
                control.withLock { $0.child = nil }
            }
            switch result.terminationStatus {
            case .exited(let status): return .exited(status: Int(status))
            case .signaled(let signal): return .killed(signal: Int(signal))
            }
        } catch let error as SubprocessError where error.code == .executableNotFound {
            return .missing(error.description)
        } catch {
            return .notStarted("\(error)")
        }
    }
}

// MARK: - While the process runs

extension AgentProcess {
    private func begin(_ child: Child) {
        let isKilled = control.withLock { control in
            control.child = child
            control.processID = child.processIdentifier.value
            return control.isKilled
        }
        if isKilled { kill() }
    }

    /// Moves bytes until the process has ended, which it has to when one of its pipes has.
    private func serve(_ child: Child, _ receive: @escaping @Sendable ([UInt8]) async -> Void) async
    {
        await withTaskGroup(of: Part.self) { group in
            group.addTask {
                await self.write(to: child.standardInputWriter)
                return .input
            }
            group.addTask {
                await Self.read(child.standardOutput, receive)
                return .output
            }
            group.addTask {
                await self.readErrors(child.standardError)
                return .errors
            }
            group.addTask { [stops] in
                for await _ in stops {}
                return .stop
            }
            var isGone = false
            var open: Set<Part> = [.output, .errors]
            while !open.isEmpty, let part = await group.next() {
                if part == .rest { break }
                open.remove(part)
                if isGone || part == .errors { continue }
                lineInput.finish()
                await child.teardown(using: Self.ends)
                isGone = true
                group.addTask {
                    try? await Task.sleep(for: Self.restTime)
                    return .rest
                }
            }
            stop()
            group.cancelAll()
        }
    }

    private func write(to writer: StandardInputWriter) async {
        for await line in lines {
            // A short write means that the process has ended; why, its end tells.
            guard let count = try? await writer.write(line), count == line.count else { break }
        }
        try? await writer.finish()
    }

    private static func read(
        _ output: SubprocessOutputSequence, _ receive: ([UInt8]) async -> Void
    ) async {
        var iterator = output.makeAsyncIterator()
        while !Task.isCancelled, let buffer = try? await iterator.next() {
            // SAFETY: the bytes are copied while the buffer lends them.
            await receive(unsafe buffer.withUnsafeBytes { unsafe Array($0) })
        }
    }

    private func readErrors(_ errors: SubprocessOutputSequence) async {
        let splitter = Mutex(LineSplitter(byteCountMax: Self.errorLineByteCountMax))
        await Self.read(errors) { bytes in
            note(splitter.withLock { $0.lines(in: bytes) })
        }
        note([splitter.withLock { $0.takeRest() }])
    }

    private func note(_ lines: [[UInt8]]) {
        for line in lines where !line.isEmpty {
            let text = String(decoding: line, as: UTF8.self)
            logger.debug("The transfer agent wrote a line.", metadata: ["line": "\(text)"])
            control.withLock { control in
                control.lastErrors.append(text)
                if control.lastErrors.count > Self.errorLineCountMax {
                    control.lastErrors.removeFirst()
                }
            }
        }
    }

    /// Writing to a process that has ended is an error then, and does not end this one.
    private static func ignorePipeSignals() {
        _ = signal(SIGPIPE, SIG_IGN)
    }
}
