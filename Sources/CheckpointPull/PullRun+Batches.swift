import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTransfer
import Glibc
import Logging
import Synchronization

/// How a pull reads batches, checks them and passes them on.
extension PullRun {
    var seconds: Double { start.duration(to: .now).inSeconds }

    /// Starts all batches that can be read now.
    func pump() {
        guard !isOver else { return }
        while canBeChecked, let batch = schedule.next(at: seconds) {
            guard let url = active[batch.source], let lease = sources[url]?.lease,
                lease.state.endpoints.indices.contains(batch.sourceEndpoint)
            else {
                schedule.fail(batch.id, at: seconds)
                schedule.retire(batch.source)
                continue
            }
            guard case .reading(let reading) = seats[batch.receiverEndpoint] else {
                preconditionFailure("an endpoint is closed while nobody reads there")
            }
            let endpoint = lease.state.endpoints[batch.sourceEndpoint]
            tasks.append(Task { await self.read(batch, endpoint, url, reading) })
        }
        if tasks.count > 256 { tasks.removeFirst(128) }
        roomWaitStart = schedule.waitsForRoom ? roomWaitStart ?? .now : nil
    }

    /// Whether there has been nothing to read for a while, since there is no room for it.
    var waitsForRoomLong: Bool {
        roomWaitStart.map { $0.duration(to: .now) > Self.roomWaitMax } ?? false
    }

    /// How long others wait for their turn at a source while this pull waits for room.
    private static let roomWaitMax = Duration.seconds(1)

    /// There is room for more.
    func open(released rangeCount: Int) {
        schedule.open(target.layout.placeCount(released: rangeCount))
        pump()
    }

    private func read(
        _ batch: PullBatch, _ endpoint: SourceEndpoint, _ url: String, _ reading: Reading
    ) async {
        let ranges = batch.chunks.flatMap { transferRanges($0, endpoint, reading) }
        let chunks = batch.chunks.flatMap(Array.init)
        let isChecked = offer.memory.isEmpty
        // Asked for while the bytes arrive. Not a child task: cancelling it would blame its source.
        let checksums = Task {
            isChecked ? await self.expectedChecksums(chunks, beside: url) : nil
        }
        do throws(TransferError) {
            _ = try await reading.agent.read(
                from: endpoint.session, ranges, timeout: timeout(batch.byteCount))
        } catch {
            return failed(batch, url, error)
        }
        // What comes after is not the wire's time.
        let readEnd = seconds
        guard !isOver, schedule.answer(batch.id) else { return }
        guard isChecked else {
            let found = await Self.checksums(of: chunks, target.layout, mapped)
            return arrived(batch, url, chunks, found, wrong: [], readEnd)
        }
        guard let expected = await checksums.value else {
            schedule.fail(batch.id, at: seconds)
            return pump()
        }
        let found = await Self.checksums(of: chunks, target.layout, mapped)
        guard !isOver, expected.generation == truth.generation else {
            // Another source decides by now.
            schedule.fail(batch.id, at: seconds)
            return pump()
        }
        let wrong = zip(chunks, zip(expected.values, found)).filter { $0.1.0 != $0.1.1 }.map(\.0)
        arrived(batch, url, chunks, found, wrong: Set(wrong), readEnd)
    }

    private func arrived(
        _ batch: PullBatch, _ url: String, _ chunks: [Int], _ values: [UInt32],
        wrong: Set<Int>, _ readEnd: Double
    ) {
        schedule.finish(batch.id, at: readEnd, wrong: wrong)
        let right = chunks.filter { !wrong.contains($0) }
        for (chunk, value) in zip(chunks, values) where !wrong.contains(chunk) {
            let source = target.layout.sourceChunk(chunk)
            target.checksums.note(source, value)
            truth.arrivedBlocks.insert(source / ChecksumTruth.blockCount)
            sources[url]?.byteCount += target.layout.source.byteCount(of: source)
        }
        if !right.isEmpty { lastArrival = .now }
        target.feed.insert(right)
        if schedule.isComplete { return end(checkedContent()) }
        if !wrong.isEmpty { delivered(wrongBytesFrom: url, wrong.count) }
        pump()
    }

    private func failed(_ batch: PullBatch, _ url: String, _ error: TransferError) {
        // One that has ended with its agent is others' by now.
        guard !isOver, schedule.isUnderWay(batch.id) else { return }
        // No source is to blame then, and no other one would do better.
        if let shortage = MemoryShortage.found(in: target.locations) {
            return end(.failure(shortage))
        }
        switch error.code {
        case .failed:
            // An answer: the agent writes no more of it.
            schedule.fail(batch.id, at: seconds)
            suspend(url, "reading from \(url) failed: \(error.message)")
        case .timedOut:
            logger.warning(
                "a source does not answer; its chunks go to others",
                metadata: ["source": "\(url)", "reason": "\(error.message)"])
            suspend(url, "\(url) did not deliver \(batch.byteCount) bytes in time")
            replace(batch.receiverEndpoint)
        case .lost, .missing, .cancelled: replace(batch.receiverEndpoint)
        }
        pump()
    }

    private func transferRanges(
        _ chunks: Range<Int>, _ endpoint: SourceEndpoint, _ reading: Reading
    ) -> [TransferRange] {
        target.layout.pieces(of: chunks).map { piece in
            TransferRange(
                local: reading.addresses[piece.location] + UInt(piece.offset),
                remote: endpoint.addresses[piece.source.shard]
                    + UInt(piece.source.range.offset),
                byteCount: piece.source.range.byteCount)
        }
    }

    /// A batch is sized by its duration, so that even slow links keep well below.
    private func timeout(_ byteCount: Int) -> Duration {
        offer.request.silenceMax + .milliseconds(byteCount / 20_000)
    }

    private static func checksums(of chunks: [Int], _ layout: PullLayout, _ mapped: [MappedShard])
        async -> [UInt32]
    {
        // The last batch of a pull is waited for: several threads make that short.
        let threads = max(1, min(verifyThreadCount, chunks.count / verifyChunkCountMin))
        let share = (chunks.count + threads - 1) / threads
        @Sendable func values(of thread: Int) -> [UInt32] {
            chunks.dropFirst(thread * share).prefix(share).map { chunk in
                let piece = layout.piece(of: chunk)
                return mapped[piece.location].checksum(
                    offset: piece.offset, byteCount: piece.source.range.byteCount)
            }
        }
        return await BlockingThread.run("ckpt-verify") {
            guard threads > 1 else { return values(of: 0) }
            let parts = Mutex([[UInt32]](repeating: [], count: threads))
            BlockingThread.runAll("ckpt-verify", count: threads) { thread in
                let part = values(of: thread)
                parts.withLock { $0[thread] = part }
            }
            return parts.withLock(\.self).flatMap(\.self)
        }
    }

    /// The wire needs cores, too.
    private static let verifyThreadCount = max(
        1, min(4, Int(sysconf(CInt(_SC_NPROCESSORS_ONLN))) / 4))
    /// A thread for less costs more than it saves.
    private static let verifyChunkCountMin = 4
}
