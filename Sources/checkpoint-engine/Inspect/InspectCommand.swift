import ArgumentParser
import CheckpointFiles

/// `checkpoint-engine inspect`: what is in a checkpoint.
struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Check a checkpoint and tell what is in it.",
        discussion: """
            Reads the headers, not the weights, and applies every check that an update applies: \
            the exit code is 0 only for a checkpoint that can be used.

              checkpoint-engine inspect /models/new
              checkpoint-engine inspect /models/new/model.safetensors.index.json --tensors
              checkpoint-engine inspect a.safetensors b.safetensors --json
            """)

    @Argument(
        help: "Directories, model.safetensors.index.json files or .safetensors files.",
        completion: .file())
    var paths: [String]

    @Flag(
        name: .customLong("json"), inversion: .prefixedNo,
        help: Variables.help("json", "Print one JSON object instead of a table (default: no)."))
    var json: Bool?

    @Flag(
        name: .customLong("tensors"), inversion: .prefixedNo,
        help: Variables.help("tensors", "List every tensor (default: no)."))
    var tensors: Bool?

    func run() async throws {
        let variables = Variables.process
        let printsJSON = try variables.isOn(json, "json")
        let listsTensors = try variables.isOn(tensors, "tensors")
        let source = try CheckpointSource.open(paths: paths)
        let inspection = Inspection(source, listsTensors: listsTensors)
        try Terminal.standardOutput.print(
            printsJSON ? JSONOutput.text(inspection) : inspection.text())
    }
}
