extension PullSchedule {
    /// What the endpoints are expected to do from now on; by lane.
    private struct Outlook {
        /// Bytes a second.
        var rates: [Double] = []
        /// Bytes that are still to come of its batches.
        var rests: [Double] = []
        /// Endpoints that are at work or could be.
        var liveCount = 0
        /// Seconds until all is here, when everybody works until then.
        var seconds = 0.0
    }

    /// The next batch to start, or `nil` when there is nothing to do before the next event.
    public mutating func next(at seconds: Double) -> PullBatch? {
        let free = freeLanes()
        guard !free.isEmpty else { return nil }
        let outlook = outlook(at: seconds)
        let ranked = free.sorted { left, right in
            let counts = (lanes[left].batches.count, lanes[right].batches.count)
            guard counts.0 == counts.1 else { return counts.0 < counts.1 }
            if counts.0 == 0 { return outlook.rates[left] > outlook.rates[right] }
            return outlook.rests[left] / outlook.rates[left]
                < outlook.rests[right] / outlook.rates[right]
        }
        for lane in ranked {
            let places = choice(for: lane, outlook)
            if !places.isEmpty { return start(places, on: lane, at: seconds) }
        }
        return nil
    }

    /// Endpoints that may have another batch. One whose receiver hears too many sources is left to
    /// drain: then it turns to another.
    private func freeLanes() -> [Int] {
        let counts = senderCounts()
        guard let least = leastBusy(counts) else { return [] }
        let countMax = counts[least] + 1
        return lanes.indices.filter { index in
            let lane = lanes[index]
            return !lane.isRetired && !isStuck(lane) && lane.batches.count < limits.depth
                && hasWork(lane) && (lane.batches.isEmpty || counts[lane.receiver] <= countMax)
        }
    }

    /// The open endpoint of the receiver that hears the fewest sources; the first of several.
    private func leastBusy(_ counts: [Int]) -> Int? {
        counts.indices.filter { !closed.contains($0) }.min { counts[$0] < counts[$1] }
    }

    /// Whether an endpoint's batches wait for the end of their reader.
    private func isStuck(_ lane: Lane) -> Bool {
        !lane.batches.isEmpty && closed.contains(lane.receiver)
    }

    /// How many source endpoints send to each endpoint of the receiver.
    private func senderCounts() -> [Int] {
        var counts = [Int](repeating: 0, count: receiverEndpointCount)
        for lane in lanes where !lane.batches.isEmpty { counts[lane.receiver] += 1 }
        return counts
    }

    private func hasWork(_ lane: Lane) -> Bool {
        let source = sources[lane.source]
        let first = (source.holdsAll ? pending : source.wanted).first(from: 0)
        return first.map { $0 < openPlaceCount } ?? false
    }

    private func outlook(at seconds: Double) -> Outlook {
        let known = lanes.compactMap(\.rate.bytesPerSecond)
        let usual =
            known.isEmpty
            ? limits.bytesPerSecondAssumed : known.reduce(0, +) / Double(known.count)
        var outlook = Outlook()
        var byteCount = Double(pendingByteCount)
        var sum = 0.0
        for lane in lanes {
            var rate = lane.rate.bytesPerSecond ?? usual
            var rest = Double(lane.byteCount)
            if let first = lane.batches.first, let flight = flights[first] {
                let elapsed = seconds - lane.rate.accountedSeconds
                let front = Double(flight.batch.byteCount)
                // One that is overdue is not as fast as it was.
                if elapsed * rate > front { rate = front / elapsed }
                rest -= min(front, max(0, elapsed * rate))
            }
            outlook.rates.append(rate)
            outlook.rests.append(rest)
            byteCount += rest
            if !lane.isRetired, !isStuck(lane), !lane.batches.isEmpty || hasWork(lane) {
                outlook.liveCount += 1
                sum += rate
            }
        }
        outlook.seconds = sum > 0 ? byteCount / sum : 0
        return outlook
    }

    /// The places that an endpoint should send next; none when it had better not.
    private func choice(for index: Int, _ outlook: Outlook) -> [Int] {
        let lane = lanes[index]
        let rate = outlook.rates[index]
        let room = rate * outlook.seconds - outlook.rests[index]
        let share = outlook.liveCount > 1 ? room / 2 : room
        let usual =
            lane.rate.bytesPerSecond == nil
            ? Double(limits.probeByteCountMax) : rate * limits.batchSeconds
        let byteCount = Int(max(0, min(Double(limits.batchByteCountMax), usual, share)))
        let places = places(of: index, byteCountMax: byteCount)
        let isLate = room < Double(order.grid.chunkByteCount) / 2
        guard isLate, let first = places.first else { return places }
        return isBetterLeft(first, by: index, outlook) ? [] : places
    }

    private func places(of index: Int, byteCountMax: Int) -> [Int] {
        let source = sources[lanes[index].source]
        return places(in: source.holdsAll ? pending : source.wanted, byteCountMax: byteCountMax)
    }

    /// Whether another endpoint, which has batches and so will ask for more, would bring one more
    /// chunk sooner than this one.
    private func isBetterLeft(_ place: Int, by index: Int, _ outlook: Outlook) -> Bool {
        func seconds(_ lane: Int) -> Double {
            (outlook.rests[lane] + Double(order.grid.chunkByteCount)) / outlook.rates[lane]
        }
        let own = seconds(index)
        return lanes.indices.contains { other in
            let source = sources[lanes[other].source]
            return other != index && !lanes[other].isRetired && !isStuck(lanes[other])
                && !lanes[other].batches.isEmpty && seconds(other) < own
                && (source.holdsAll || source.wanted.contains(place))
        }
    }

    /// The first places of `set` up to `byteCountMax`, at least one, as far as there is room.
    private func places(in set: PlaceSet, byteCountMax: Int) -> [Int] {
        var places: [Int] = []
        var byteCount = 0
        var next = set.first(from: 0)
        while let place = next, place < openPlaceCount {
            byteCount += order.grid.byteCount(of: order.chunks[place])
            guard places.isEmpty || byteCount <= byteCountMax else { break }
            places.append(place)
            next = set.first(from: place + 1)
        }
        return places
    }

    private mutating func start(_ places: [Int], on index: Int, at seconds: Double) -> PullBatch {
        for place in places { take(place) }
        let counts = senderCounts()
        if lanes[index].batches.isEmpty, let least = leastBusy(counts) {
            lanes[index].rate.skip(to: seconds)
            // The one with the same number is the nearest where hosts are built alike.
            let near = lanes[index].endpoint % receiverEndpointCount
            let isNearFree = !closed.contains(near) && counts[near] == counts[least]
            lanes[index].receiver = isNearFree ? near : least
        }
        let chunks = places.map { order.chunks[$0] }
        let batch = PullBatch(
            id: nextID, source: lanes[index].source, sourceEndpoint: lanes[index].endpoint,
            receiverEndpoint: lanes[index].receiver,
            chunks: PullBatch.runs(of: chunks, in: order.grid),
            byteCount: chunks.reduce(0) { $0 + order.grid.byteCount(of: $1) })
        nextID += 1
        lanes[index].batches.append(batch.id)
        lanes[index].byteCount += batch.byteCount
        flights[batch.id] = Flight(batch: batch, places: places)
        return batch
    }
}
