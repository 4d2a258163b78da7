import CheckpointPlan

/// How a pull learns what the chunks have to be.
extension PullRun {
    /// What the chunks have to be, as long as the generation is the truth's; `nil` when nobody tells now.
    func expectedChecksums(_ chunks: [Int], beside url: String) async -> (
        generation: Int, values: [UInt32]
    )? {
        var generation = truth.generation
        var values: [UInt32] = []
        for chunk in chunks.lazy.map(target.layout.sourceChunk) {
            let block = chunk / ChecksumTruth.blockCount
            guard let known = await self.block(block, beside: url) else { return nil }
            // Values of two generations together are of no use: the caller sees the older one's.
            if values.isEmpty { generation = truth.generation }
            values.append(known[chunk % ChecksumTruth.blockCount])
        }
        return (generation, values)
    }

    private func block(_ block: Int, beside url: String) async -> [UInt32]? {
        if truth.isProven, let known = truth.blocks[block] { return known }
        guard let source = truth.source ?? successor(beside: url) else { return nil }
        let generation = truth.generation
        // One that has not decided before has to have all that has arrived.
        let unproven = truth.isProven ? [] : truth.arrivedBlocks.subtracting([block]).sorted()
        for block in unproven + [block] where truth.blocks[block] == nil {
            guard await ask(source, for: block), truth.generation == generation else { return nil }
        }
        truth.isProven = true
        return truth.blocks[block]
    }

    /// Takes the checksums of a block from the source that decides; `false` when it does not tell them, or has
    /// others than those that have arrived.
    private func ask(_ source: String, for block: Int) async -> Bool {
        guard let lease = sources[source]?.lease, let address = sources[source]?.address else {
            return false
        }
        let generation = truth.generation
        let chunks = ChecksumTruth.chunks(of: block, in: offer.order.grid)
        let asked = sources[source]?.asked[block] ?? ask(address, lease.id, for: chunks)
        sources[source]?.asked[block] = asked
        let answer = await asked.value
        // A lease that has ended meanwhile says nothing; whether there is another the source tells.
        guard sources[source]?.lease?.id == lease.id else { return false }
        sources[source]?.asked[block] = nil
        switch answer {
        case .failure(let refusal):
            suspend(source, refusal.message)
            return false
        case .success(let values):
            return truth.generation == generation && take(values, of: block, chunks, from: source)
        }
    }

    private func ask(_ address: SourceAddress, _ lease: String, for chunks: Range<Int>) -> Task<
        Result<[UInt32], SourceClient.Refusal>, Never
    > {
        let client = offer.client
        return Task {
            do throws(SourceClient.Refusal) {
                return .success(try await client.checksums(chunks, of: lease, at: address))
            } catch {
                return .failure(error)
            }
        }
    }

    private func take(
        _ values: [UInt32], of block: Int, _ chunks: Range<Int>, from source: String
    ) -> Bool {
        let conflict = chunks.first { chunk in
            target.checksums.known(chunk).map { $0 != values[chunk - chunks.lowerBound] } ?? false
        }
        if let conflict {
            giveUp(
                source,
                "\(source) has another version of \(offer.request.checkpoint): chunk \(conflict) is "
                    + "not what others have")
            return false
        }
        truth.blocks[block] = values
        return true
    }

    /// Whose checksums count when those of the first source are not to be had any more: a source that has
    /// everything, if there is one.
    private func successor(beside url: String) -> String? {
        let leased = sources.values.filter { $0.lease != nil }
        let complete = leased.filter { $0.lease?.state.arrived == nil }
        let candidates = (complete.isEmpty ? leased : complete).map(\.address.url)
        let next = candidates.contains(url) ? url : candidates.first
        next.map { truth.adopt($0) }
        return next
    }
}

/// The checksums that decide, block by block, and the source that they are from.
struct ChecksumTruth: Sendable {
    static let blockCount = 128

    var source: String?
    var blocks: [Int: [UInt32]] = [:]
    /// The blocks of chunks that have arrived.
    var arrivedBlocks: Set<Int> = []
    /// Whether the source has what has arrived before it decided.
    var isProven = false
    /// How many sources have decided.
    private(set) var generation = 0

    /// Lets another source decide. What the one before said counts no more: of two versions that begin
    /// alike it may have had the other.
    mutating func adopt(_ url: String) {
        source = url
        blocks = [:]
        isProven = false
        generation += 1
    }

    static func chunks(of block: Int, in grid: ChunkGrid) -> Range<Int> {
        (block * blockCount)..<min((block + 1) * blockCount, grid.count)
    }
}
