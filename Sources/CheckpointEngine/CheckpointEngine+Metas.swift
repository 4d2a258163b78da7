public import CheckpointModel
import CheckpointNative
import CheckpointPull
import Logging

/// The global metas: who has which tensors, and where they can be read.
extension CheckpointEngine {
    /// Publishes the checkpoint's metas: from here on ``metas()`` describes it. Where other hosts can reach this
    /// one they tell how to read it, and the agent that they read from is started.
    @discardableResult
    public func gatherMetas(_ name: CheckpointName) async throws(EngineError) -> MetasDocument {
        guard case .ready(let registered) = try entry(name).state else {
            throw EngineError(.busy, "\(name) is still being registered; wait for its end")
        }
        try registered.checkKept(name)
        guard let url = configuration.pull.advertisedURL else {
            gathered = MetasDocument(catalog: registered.catalog)
            return gathered
        }
        var found: SourceEndpoint?
        do throws(EngineError) {
            found = try await endpoints(of: registered)[0]
        } catch {
            // Everything but reading from here works without an agent.
            logger.warning(
                "other hosts cannot read from this one", metadata: ["error": "\(error.message)"])
        }
        gathered = MetasDocument(
            catalog: registered.catalog, session: found?.session, addresses: found?.addresses,
            source: found.map { _ in
                // Known where the checksums are: nobody waits for them here.
                MetasDocument.Source(
                    url: url.description, checkpoint: name.description,
                    content: try? registered.sharing.shared(registered).checksums.content)
            })
        return gathered
    }

    /// The metas that were gathered or loaded last; empty before.
    public func metas() -> MetasDocument { gathered }

    /// Takes metas of other hosts, as JSON; returns the URLs of the daemons that they name.
    @discardableResult
    public func loadMetas(_ bytes: [UInt8]) async throws(EngineError) -> [String] {
        // They may be large: nobody waits for that but the caller.
        let (document, urls) = try await BlockingThread.run("ckpt-metas") {
            () throws(EngineError) in
            let document = try MetasDocument(json: bytes)
            return (document, document.sourceURLs)
        }
        gathered = document
        return urls
    }

    /// The same from a daemon, by its URL with or without `/v1/metas`.
    public func loadMetas(from url: String, token: String?) async throws(EngineError) -> [String] {
        let address: SourceAddress
        do throws(AddressFlaw) {
            let parsed = try HTTPURL(url)
            address = try SourceAddress(
                parsed.removing(pathEnd: Self.metasPath) ?? parsed, token: token)
        } catch {
            throw EngineError(.invalidArgument, "the daemon with the metas: \(error)")
        }
        let bytes: [UInt8]
        do throws(PullError) {
            bytes = try await sourceClient.metas(of: address)
        } catch {
            throw EngineError(error)
        }
        return try await loadMetas(bytes)
    }

    private static let metasPath = "/v1/metas"
}
