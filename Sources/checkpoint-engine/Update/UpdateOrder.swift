import ArgumentParser
import CheckpointEngine
import CheckpointModel

/// Everything that one run of `update` was told.
struct UpdateOrder: Sendable {
    /// What is read from this host; `nil` when everything comes from others.
    let path: String?
    /// What is read from other hosts, after that.
    let source: SourceOrder?
    let name: CheckpointName
    let request: UpdateRequest
    let readySeconds: Double
    let sleepSeconds: Double
    let metasFile: OutputFile?
    let traceFile: OutputFile?
    let consumes: Bool
    let printsJSON: Bool
}

extension UpdateCommand {
    /// Puts flags and variables together and checks what they mean to each other.
    func updateOrder(_ variables: Variables) throws -> UpdateOrder {
        let method = try variables.value(method, "update-method") ?? .broadcast
        guard method != .broadcast || !sourceOptions.isGiven else {
            throw ValidationError(
                "'--source', '--load-metas-file' and '--metas-url' belong to '--update-method p2p' or "
                    + "'all'.")
        }
        let path =
            method == .p2p
            ? nil : try variables.required(checkpointPath, "checkpoint-path").path
        let request = try targetOptions.request(variables)
        let metasFile = try variables.file(metasFile, "save-metas-file")
        let traceFile = try variables.file(traceFile, "trace")
        try OutputFile.checkDistinct(metasFile, traceFile)
        return UpdateOrder(
            path: path,
            source: method == .broadcast ? nil : try sourceOptions.order(variables),
            name: try targetOptions.name(variables),
            request: request,
            readySeconds: try targetOptions.readySeconds(variables),
            sleepSeconds: try variables.value(sleepTime, "sleep-time")?.seconds ?? 0,
            metasFile: metasFile, traceFile: traceFile,
            consumes: try variables.isOn(consumes, "consume"),
            printsJSON: try variables.isOn(json, "json"))
    }
}
