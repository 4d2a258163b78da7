import ArgumentParser
import CheckpointEngine

/// Where ZeroMQ is taken from, the same for every command that talks to workers.
struct ZeroMQOptions: ParsableArguments {
    @Option(
        name: .customLong("zmq-library"),
        help: Variables.help(
            "zmq-library",
            "The file of the ZeroMQ library; the default is the system's libzmq.so.5, else the one "
                + "inside an installed pyzmq.", "file"),
        completion: .file())
    var zeroMQLibrary: PathValue?

    /// The library that was named, or all places where one may be.
    func libraryNames(_ variables: Variables) throws -> [String] {
        if let given = try variables.value(zeroMQLibrary, "zmq-library") { return [given.path] }
        return EngineConfiguration.zeroMQLibraryNamesDefault
            + PythonLibraries.zeroMQ(variables)
    }
}
