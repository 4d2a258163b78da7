import ArgumentParser
import CheckpointEngine
import CheckpointModel

/// Everything that one run of `update` was told.
struct UpdateOrder: Sendable {
    let path: String
    let name: CheckpointName
    let request: UpdateRequest
    let readySeconds: Double
    let sleepSeconds: Double
    let metasFile: String?
    let traceFile: String?
    let consumes: Bool
    let printsJSON: Bool
}

extension UpdateCommand {
    static let nameDefault = "my-checkpoint-iter-0"

    /// Puts flags and variables together and checks what they mean to each other.
    func updateOrder(_ variables: Variables) throws -> UpdateOrder {
        let method = try variables.value(method, "update-method") ?? .broadcast
        guard method == .broadcast else {
            throw ValidationError(
                "The update method '\(method.rawValue)' is not available in this version: leave "
                    + "'--update-method' out, or set it to broadcast, to update the engines of "
                    + "this machine.")
        }
        let timeout = try variables.value(timeout, "timeout")?.seconds
        guard timeout ?? 1 > 0 else {
            throw ValidationError("The value '0' is invalid for '--timeout': expected more.")
        }
        guard
            let name = try variables.value(checkpointName, "checkpoint-name")?.name
                ?? CheckpointName(Self.nameDefault)
        else { throw ValidationError("Missing expected option '--checkpoint-name'.") }
        let seconds = timeout ?? UpdateRequest.timeoutSecondsDefault
        return UpdateOrder(
            path: try variables.required(checkpointPath, "checkpoint-path").path,
            name: name,
            request: try request(variables, timeoutSeconds: seconds),
            readySeconds: try variables.value(readyTimeout, "ready-timeout")?.seconds ?? seconds,
            sleepSeconds: try variables.value(sleepTime, "sleep-time")?.seconds ?? 0,
            metasFile: try variables.value(metasFile, "save-metas-file")?.path,
            traceFile: try variables.value(traceFile, "trace")?.path,
            consumes: try variables.isOn(consumes, "consume"),
            printsJSON: try variables.isOn(json, "json"))
    }

    private func request(_ variables: Variables, timeoutSeconds: Double) throws -> UpdateRequest {
        UpdateRequest(
            instances: try instances(variables), timeoutSeconds: timeoutSeconds,
            pause: try variables.value(controlOptions.pause, "pause"),
            weightVersion: try variables.value(
                controlOptions.weightVersion, "weight-version")?.text,
            wakes: try variables.isOn(controlOptions.wakes, "wake"),
            nativeSender: try controlOptions.nativeSender(variables))
    }

    private func instances(_ variables: Variables) throws -> [EngineInstance] {
        let endpoints = try variables.values(endpoints, "endpoint")
        let sockets = try variables.values(sockets, "uds").map(\.path)
        let workers = try variables.value(workerCount, "inference-parallel-size")?.count
        let kind = try variables.value(controlOptions.kind, "engine") ?? .vllm
        guard !endpoints.isEmpty else {
            throw ValidationError(
                "Missing expected option '--endpoint' (or the variable "
                    + "\(Variables.name("endpoint"))).")
        }
        guard sockets.count <= 1 || sockets.count == endpoints.count else {
            throw ValidationError(
                "There are \(sockets.count) '--uds' for \(endpoints.count) '--endpoint': give one "
                    + "for all, or one for each.")
        }
        return endpoints.enumerated().map { index, endpoint in
            EngineInstance(
                updateURL: endpoint.url,
                unixSocketPath: sockets.count > 1 ? sockets[index] : sockets.first,
                workerCount: workers, kind: kind)
        }
    }
}
