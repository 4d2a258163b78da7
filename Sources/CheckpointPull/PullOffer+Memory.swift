public import CheckpointModel
import CheckpointPlan

extension PullOffer {
    /// What lies in the memory of `sources`. Fails where the catalog's tensors have more bytes than its shards,
    /// there are too many sources, or a session is none of host and port.
    public init?(
        _ catalog: Catalog, sources: [MemorySource], request: PullRequest, client: SourceClient
    ) {
        let ranges = catalog.tensors.map { ShardRange(shard: $0.shard, range: $0.range) }
        guard sources.count <= PullRequest.sourceCountMax, Self.doNotOverlap(catalog),
            let grid = ChunkGrid(shardByteCounts: catalog.shards.map(\.byteCount)),
            let order = PullOrder(grid: grid, ranges: ranges),
            sources.allSatisfy({ (try? NetworkAddress($0.session)) != nil })
        else { return nil }
        self.init(
            catalog: catalog, order: order, digest: "", memory: sources, request: request,
            client: client)
    }
}

extension PullRun {
    /// Begins to read a process's memory.
    func add(_ source: MemorySource) {
        let grid = offer.order.grid
        guard let session = try? NetworkAddress(source.session),
            let address = try? SourceAddress(HTTPURL(session)),
            sources[address.url] == nil
        else { return }
        let addresses = grid.shardByteCounts.indices.map { source.addresses[$0] ?? 0 }
        var known = PulledSource(address: address, isNamed: true)
        known.lease = SourceLease(
            id: "",
            state: LeaseState(
                secondsLeft: 0, isActive: true, readers: [], arrived: nil,
                endpoints: [SourceEndpoint(session: source.session, addresses: addresses)]),
            incarnation: "", digest: "", chunkByteCount: grid.chunkByteCount,
            shardByteCounts: grid.shardByteCounts)
        let number = schedule.addSource(endpointCount: 1, holdsAll: false)
        known.number = number
        sources[address.url] = known
        active[number] = address.url
        for shard in source.addresses.keys where grid.shardByteCounts.indices.contains(shard) {
            schedule.extend(number, with: grid.chunks(of: shard))
        }
    }
}
