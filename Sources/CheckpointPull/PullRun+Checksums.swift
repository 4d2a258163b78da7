import CheckpointPlan

/// How a pull learns what the chunks have to be.
extension PullRun {
    /// Whether somebody tells what the bytes have to be, so that it is of use to read them.
    var canBeChecked: Bool {
        !offer.memory.isEmpty || truth.isWhole
            || sources.values.contains { $0.isNamed && $0.lease != nil }
    }

    /// Asks for all checksums ahead of the bytes, so that others can bring the rest when the source that decides
    /// is gone.
    func learnTruth() async {
        var blocks = Set<Int>()
        let wanted = offer.order.chunks.map { $0 / ChecksumTruth.blockCount }.filter {
            blocks.insert($0).inserted
        }
        truth.wantedBlockCount = wanted.count
        while !isOver, !truth.isWhole {
            for block in wanted where truth.blocks[block] == nil || !truth.isProven {
                // What is not there yet is waited for by whoever needs it.
                guard let source = truth.source, let lease = sources[source]?.lease,
                    lease.state.arrived == nil, await self.block(block) != nil, !isOver
                else { break }
            }
            do { try await Task.sleep(for: Self.learnInterval) } catch { return }
        }
    }

    private static let learnInterval = Duration.milliseconds(500)

    /// The end of a pull that has read everything: what is here has to be what the source says that it has.
    func checkedContent() -> Result<Void, PullError> {
        guard let expected = truth.content, let found = target.checksums.content, expected != found
        else { return .success(()) }
        return .failure(
            PullError(
                .sourceFailed,
                "what was read of \(offer.request.checkpoint) has the content digest \(found), not the "
                    + "\(expected) of \(truth.source ?? "its source"): pull it again"))
    }

    /// Takes what a source says that its bytes are; `false` when it is given up for that.
    func take(content: String?, of url: String) -> Bool {
        guard let content, let source = sources[url] else { return true }
        if let known = source.content, known != content {
            giveUp(url, "\(url) has changed the bytes of \(offer.request.checkpoint)")
            return false
        }
        sources[url]?.content = content
        let expected = truth.content ?? offer.request.content
        guard expected ?? content == content else {
            giveUp(
                url,
                "\(url) has other bytes under the name \(offer.request.checkpoint) than "
                    + (truth.content == nil ? "the metas say; gather them again" : "others have"))
            return false
        }
        if truth.source == url { truth.content = content }
        return true
    }

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

    private func block(_ block: Int, beside url: String? = nil) async -> [UInt32]? {
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

    /// Whose checksums count when those of the first source are not to be had any more: one that was named, and
    /// that has everything, if there is one.
    private func successor(beside url: String?) -> String? {
        let leased = sources.values.filter { $0.isNamed && $0.lease != nil }
        let complete = leased.filter { $0.lease?.state.arrived == nil }
        let candidates = (complete.isEmpty ? leased : complete).map(\.address.url)
        let next = url.flatMap { candidates.contains($0) ? $0 : nil } ?? candidates.first
        next.map(decide)
        return next
    }

    /// Lets a source that was named tell what the bytes have to be.
    func decide(_ url: String) {
        truth.adopt(url)
        // As long as nothing is here any version will do.
        if truth.arrivedBlocks.isEmpty { truth.content = nil }
        truth.content = truth.content ?? sources[url]?.content
    }
}

/// The checksums that decide, block by block, and the source that they are from.
struct ChecksumTruth: Sendable {
    static let blockCount = 128

    var source: String?
    var blocks: [Int: [UInt32]] = [:]
    /// What the source says that its bytes are.
    var content: String?
    /// The blocks of chunks that have arrived.
    var arrivedBlocks: Set<Int> = []
    /// Whether the source has what has arrived before it decided.
    var isProven = false
    /// How many blocks the pull needs; `nil` before that has been counted.
    var wantedBlockCount: Int?
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

    /// Whether all checksums are known, so that no source is needed for them.
    var isWhole: Bool { isProven && wantedBlockCount.map { blocks.count >= $0 } ?? false }

    static func chunks(of block: Int, in grid: ChunkGrid) -> Range<Int> {
        (block * blockCount)..<min((block + 1) * blockCount, grid.count)
    }
}
