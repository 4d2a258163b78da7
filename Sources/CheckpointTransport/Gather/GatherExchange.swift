public import CheckpointDevice

/// What one GPU has to exchange for one bucket.
public struct GatherExchangeStep: Sendable {
    /// The GPU's place among those of the run.
    public let index: Int
    /// The host that alone has the bucket; `nil` when this one has it.
    public let owner: Int?
    /// The bytes of the ring that each GPU brings to the others.
    public let shares: [Range<Int>]
    /// The ring of each GPU.
    public let rings: [DeviceAddress]
    public let stream: CudaStream
}

/// How the shares of a bucket come to every GPU. Called by the thread of each GPU for its own part.
public protocol GatherExchange: Sendable {
    /// Queues the part of one GPU; when the parts of all are done, the bucket is complete in every ring.
    func queue(_ step: GatherExchangeStep) throws(DeviceError)
    /// Ends what is under way, from any thread.
    func cancel()
}

/// Copies between GPUs of one host that reach each other: each writes its share into the rings of the others.
///
/// It needs no kernel and no communicator, and takes nothing from the engine's processors.
public struct PeerCopies: GatherExchange {
    /// Lets every GPU write to every other one.
    public init(_ gpus: [GPU]) throws(DeviceError) {
        for gpu in gpus {
            for peer in gpus where peer !== gpu { try gpu.reach(peer) }
        }
    }

    public func queue(_ step: GatherExchangeStep) throws(DeviceError) {
        let share = step.shares[step.index]
        guard !share.isEmpty else { return }
        // Each begins with another peer, so that no GPU is written to by all at once.
        for distance in 1..<max(1, step.rings.count) {
            let peer = (step.index + distance) % step.rings.count
            try step.stream.copy(
                from: step.rings[step.index] + share.lowerBound,
                to: step.rings[peer] + share.lowerBound, byteCount: share.count)
        }
    }

    public func cancel() {}
}
