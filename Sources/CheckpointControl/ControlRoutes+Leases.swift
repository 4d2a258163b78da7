import CheckpointEngine
import CheckpointModel
import CheckpointPull
import Hummingbird
import NIOCore

/// Routes for hosts that read from this one, and for reading from others.
extension ControlRoutes {
    private static let urlByteCountMax = SourceAddress.urlByteCountMax

    /// Begins a lease.
    func beginLease(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let name = try checkpointName(context)
        var fields = try await jsonBody(request)
        let reader = try fields.optionalString("reader", byteCountMax: Self.urlByteCountMax)
        try fields.finish()
        return .bytes(
            try await engine.beginLease(
                name, reader: reader, peer: context.channel.remoteAddress?.ipAddress),
            type: "application/json")
    }

    func renewLease(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        var fields = try await optionalJSONBody(request)
        let received = try fields.optionalIndex("received", max: ByteCount.range.upperBound)
        try fields.finish()
        return .bytes(
            try await engine.renewLease(leaseID(context), received: received),
            type: "application/json")
    }

    func endLease(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let id = try leaseID(context)
        try await engine.endLease(id)
        return try .json(["lease": id])
    }

    /// The tensors, in the order of delivery.
    func leaseCatalog(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        return .bytes(
            try await engine.leaseCatalog(leaseID(context)), type: "application/json")
    }

    /// Four bytes for each chunk, the lowest first; waits until they are known.
    func leaseChecksums(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let texts = ["first", "count"].map { context.parameters.get($0) ?? "" }
        let numbers = texts.compactMap { text in Int(text).flatMap { "\($0)" == text ? $0 : nil } }
        guard numbers.count == 2 else {
            throw ControlError.invalid(
                "the path ends with a chunk and a count, got \(texts.map { $0.prefix(40) })")
        }
        return .bytes(
            try await engine.leaseChecksums(
                leaseID(context), first: numbers[0], count: numbers[1]),
            type: "application/octet-stream")
    }

    /// Reads a checkpoint from other hosts. Answers when everything is there, or with `"wait": false` when its
    /// tensors are known.
    func pull(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let name = try checkpointName(context)
        let body = try PullBody(await jsonBody(request))
        let begun = try await engine.pull(
            name, remoteName: body.remoteName, sources: body.sources, token: body.token,
            stallTimeout: .seconds(body.stallSeconds), keep: body.keep)
        guard body.waits else { return try .json(begun, status: .accepted) }
        return try .json(try await waits.hold { try await engine.finishedPull(name) })
    }

    private func leaseID(_ context: Context) throws(ControlError) -> String {
        let id = context.parameters.get("id") ?? ""
        guard (1...128).contains(id.utf8.count) else {
            throw .invalid("the lease in the path has \(id.utf8.count) bytes, not 1 to 128")
        }
        return id
    }
}
