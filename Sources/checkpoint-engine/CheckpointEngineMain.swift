import ArgumentParser
import CheckpointDevice
import CheckpointNative
import Glibc

/// Parses the command line, runs the subcommand, and turns every failure into a message and an
/// exit code: 1 for a failure, 2 for wrong usage, 128 and the signal's number after a signal.
@main
enum CheckpointEngineMain {
    static func main() async {
        StandardStreams.prepare()
        CrashReport.install("checkpoint-engine \(Version.current)")
        // Every file, directory and socket that the process makes is private to its user.
        umask(0o077)
        Heap.returnLargeBlocks()
        Descriptors.raiseLimit()
        exit(await run(Array(CommandLine.arguments.dropFirst())))
    }

    private static func run(_ arguments: [String]) async -> Int32 {
        let command: any ParsableCommand
        do {
            command = try RootCommand.parseAsRoot(arguments)
        } catch {
            return report(error, of: RootCommand.self)
        }
        do {
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                var command = command
                try command.run()
            }
            return ExitCode.success.rawValue
        } catch {
            return report(error, of: type(of: command))
        }
    }

    /// Writes help to standard output and failures to standard error.
    private static func report(_ error: any Error, of command: any ParsableCommand.Type) -> Int32 {
        if let code = error as? ExitCode { return code.rawValue }
        let code = command.exitCode(for: error)
        if code == .success {
            do {
                try Terminal.standardOutput.print(command.fullMessage(for: error) + "\n")
                return code.rawValue
            } catch {
                return report(error, of: command)
            }
        }
        if code == .validationFailure {
            Terminal.standardError.write(usageText(error, of: command))
            return CommandError.Code.usage.rawValue
        }
        let failure = CommandError(error)
        Terminal.standardError.write(failure.text + "\n")
        return failure.code.rawValue
    }

    /// Errors of the parser come with the usage of their subcommand; our own checks name theirs.
    private static func usageText(
        _ error: any Error, of command: any ParsableCommand.Type
    ) -> String {
        guard error is ValidationError else {
            let text = command.fullMessage(for: error)
            let prefix = "Error: "
            return (text.hasPrefix(prefix) ? "error: " + text.dropFirst(prefix.count) : text) + "\n"
        }
        let name = command == RootCommand.self ? "" : " \(command._commandName)"
        return "error: \(command.message(for: error))\n"
            + "  See 'checkpoint-engine\(name) --help' for more information.\n"
    }
}
