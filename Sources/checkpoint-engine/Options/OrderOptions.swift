import ArgumentParser
import CheckpointControl
import CheckpointFiles

/// Flags about what those who give orders over HTTP may have done.
struct OrderOptions: ParsableArguments {
    @Option(
        name: .customLong("allow-engine"),
        help: Variables.help(
            "allow-engine",
            "Engines that updates may call, and that are shown the engines' key: HOST, HOST:PORT, the path "
                + "of a unix socket, with * for any characters but /, loopback, or own-sockets, those of the "
                + "daemon's user; repeat it for several (default: loopback and own-sockets).",
            "pattern"))
    var engines: [EnginePatternValue] = []

    @Option(
        name: .customLong("allow-path"),
        help: Variables.help(
            "allow-path",
            "The directory that checkpoints may be registered from, wherever links lead; repeat it for "
                + "several (default: every file that the daemon's user can read).", "dir"),
        completion: .directory)
    var directories: [PathValue] = []

    func allowedEngines(_ variables: Variables) throws -> EngineAllowList {
        let patterns = try variables.values(engines, "allow-engine").map(\.pattern)
        return patterns.isEmpty ? .standard : EngineAllowList(patterns)
    }

    func allowedFiles(_ variables: Variables) throws -> FileRoots {
        let paths = try variables.values(directories, "allow-path").map(\.path)
        return paths.isEmpty ? .everywhere : try FileRoots(paths)
    }
}
