/// Messages of the worker protocol, both ways: what is accepted survives a round trip.
func fuzzWorkerMessages(_ bytes: [UInt8]) {
    let frames = bytes.split(separator: 0, maxSplits: 1, omittingEmptySubsequences: false)
        .map(Array.init)
    if let message = try? WorkerMessage(frames: frames) {
        precondition(
            (try? WorkerMessage(frames: [message.frame()])) == message,
            "a worker's message does not survive a round trip")
    }
    if let message = try? ServerMessage(frames: frames) {
        precondition(
            (try? ServerMessage(frames: message.frames())) == message,
            "a server's message does not survive a round trip")
    }
}

/// The rows of a catalog that another host or a source has sent, and all that is planned from them.
func fuzzCatalog(_ bytes: [UInt8]) {
    guard let tensors = try? CatalogMessage.rows(of: bytes) else { return }
    precondition(
        (try? CatalogMessage.rows(of: CatalogMessage.body(tensors))) == tensors,
        "a catalog does not survive a round trip")
    let last = tensors.map(\.shard).max() ?? 0
    guard last < 16 else { return }
    var byteCounts = [Int](repeating: 0, count: last + 1)
    for tensor in tensors {
        byteCounts[tensor.shard] = max(byteCounts[tensor.shard], tensor.range.end)
    }
    plan(byteCounts, tensors)
}

/// Plans as a pull and an update do it.
private func plan(_ byteCounts: [Int], _ tensors: [TensorEntry]) {
    let shards = byteCounts.map { Catalog.Shard(name: "s", byteCount: $0) }
    guard let catalog = try? Catalog(shards: shards, tensors: tensors) else { return }
    let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: 1 << 20)
    precondition(
        plan.buckets.reduce(0) { $0 + $1.byteCount } == catalog.byteCount, "bytes without a bucket")
    guard (try? HostUnion(catalogs: [tensors, tensors], host: 1)) != nil,
        let grid = ChunkGrid(shardByteCounts: byteCounts, chunkByteCount: 1 << 20),
        // Tables of that size are memory, not arithmetic.
        grid.count < 1 << 12
    else { return }
    _ = PullOrder(
        grid: grid, ranges: tensors.map { ShardRange(shard: $0.shard, range: $0.range) })
}

/// What a source says of a lease.
func fuzzLeases(_ bytes: [UInt8]) {
    if let lease = try? SourceLease(bytes) {
        precondition(
            (try? SourceLease(lease.encoded())) == lease, "a lease does not survive a round trip")
        for endpoint in lease.state.endpoints {
            for (address, byteCount) in zip(endpoint.addresses, lease.shardByteCounts) {
                _ = address + UInt(byteCount)
            }
        }
        _ = ChunkGrid(
            shardByteCounts: lease.shardByteCounts, chunkByteCount: lease.chunkByteCount
        ).map(\.count)
    }
    if let state = try? LeaseState(bytes) {
        precondition(
            (try? LeaseState(state.encoded())) == state, "a state does not survive a round trip")
    }
}

/// Metas that somebody has saved or sent, and what is read by them.
func fuzzMetas(_ bytes: [UInt8]) {
    guard let document = try? MetasDocument(json: bytes) else { return }
    _ = document.sourceURLs
    _ = document.sourceName
    guard let (catalog, sources) = try? document.memory() else { return }
    for source in sources {
        for (shard, address) in source.addresses {
            _ = address + UInt(catalog.shards[shard].byteCount)
        }
    }
}

/// What other hosts say: a header, and behind the first zero its payload.
func fuzzHosts(_ bytes: [UInt8]) {
    let parts = bytes.split(separator: 0, maxSplits: 1, omittingEmptySubsequences: false)
        .map(Array.init)
    let payload = parts.count > 1 ? parts[1] : []
    if let header = try? HostHeader(parts[0]), header.payloadByteCounts.contains(payload.count) {
        let message = header.message(payload)
        let written = message.parts
        precondition(
            (try? HostHeader(written.header))?.message(written.payloads.flatMap(\.self)) == message,
            "a host's message does not survive a round trip")
    }
    if let offer = try? HostOffer(bytes, host: 1) {
        precondition(
            (try? HostOffer(offer.bytes, host: 1))?.bytes == offer.bytes,
            "an offer does not survive a round trip")
    }
}

/// A line of the transfer agent.
func fuzzAgent(_ bytes: [UInt8]) { _ = try? AgentMessage.parse(bytes) }

/// The bodies of HTTP requests.
func fuzzRequests(_ bytes: [UInt8]) {
    let limits = JSONLimits(byteCountMax: 1 << 16, depthMax: 8, stringByteCountMax: 1 << 16)
    guard case .object(let object)? = try? JSONValue.parse(bytes, limits: limits) else { return }
    let fields = RequestFields(object)
    _ = try? RegisterBody(fields)
    _ = try? OpenUpdateBody(fields)
    if let pull = try? PullBody(fields) { _ = Duration.seconds(pull.stallSeconds) }
    guard let update = try? UpdateBody(fields) else { return }
    for instance in update.request.instances {
        precondition(
            (instance.ranks ?? []).allSatisfy { $0 >= 0 && $0 < UpdateBody.rankCountMax },
            "a rank that cannot be was accepted")
    }
}
