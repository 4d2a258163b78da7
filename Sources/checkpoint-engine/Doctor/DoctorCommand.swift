import ArgumentParser

/// `checkpoint-engine doctor`: whether this machine has what is needed.
struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Check what this machine has, what is missing, and how to get it.",
        discussion: """
            Looks at native libraries, GPUs, shared memory, limits and directories, with the same \
            flags and variables as update and serve. The exit code is 1 when something required \
            is missing.

              checkpoint-engine doctor
              checkpoint-engine doctor --json
            """)

    @Flag(
        name: .customLong("json"), inversion: .prefixedNo,
        help: Variables.help("json", "Print one JSON object instead of lines (default: no)."))
    var json: Bool?

    @OptionGroup var engineOptions: EngineOptions

    func run() async throws {
        let variables = Variables.process
        let printsJSON = try variables.isOn(json, "json")
        let examination = Examination(
            configuration: try engineOptions.configuration(variables))
        let report = DoctorReport(findings: examination.run())
        try Terminal.standardOutput.print(printsJSON ? JSONOutput.text(report) : report.text())
        if report.isMissingSomething { throw ExitCode(CommandError.Code.failure.rawValue) }
    }
}
