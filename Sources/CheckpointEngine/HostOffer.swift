import CheckpointHosts
import CheckpointJSON
import CheckpointModel

/// What a host tells the others at the begin of an update.
struct HostOffer {
    /// A name for this update; that of host 0 counts.
    let nonce: String
    /// The FNV-1a digest of its catalog.
    let digest: String
    /// The key of the union that it knows from the update before.
    let unionKey: String
    let gpuCount: Int
    /// Bytes that are free on its tightest GPU.
    let freeByteCount: Int
    /// The rails that it is on, by name; empty for none.
    let rails: String

    private static let gpuCounts = 1...4096

    var bytes: [UInt8] {
        JSONValue.object(
            JSONObject([
                ("nonce", .string(nonce)), ("digest", .string(digest)),
                ("union", .string(unionKey)), ("gpus", .integer(gpuCount)),
                ("free", .integer(freeByteCount)), ("rails", .string(rails)),
            ])
        ).encoded()
    }

    init(
        nonce: String, digest: String, unionKey: String, gpuCount: Int, freeByteCount: Int,
        rails: String
    ) {
        self.nonce = nonce
        self.digest = digest
        self.unionKey = unionKey
        self.gpuCount = gpuCount
        self.freeByteCount = freeByteCount
        self.rails = rails
    }

    init(_ bytes: [UInt8], host: Int) throws(EngineError) {
        do throws(JSONError) {
            let limits = JSONLimits(
                byteCountMax: 64 << 10, depthMax: 2, stringByteCountMax: 32 << 10)
            guard case .object(let object) = try JSONValue.parse(bytes, limits: limits) else {
                throw JSONError(.unexpectedKind, "it is no object", at: 0)
            }
            var reader = JSONObjectReader(object)
            nonce = try reader.string("nonce")
            digest = try reader.string("digest")
            unionKey = try reader.string("union")
            gpuCount = try reader.integer("gpus", in: Self.gpuCounts)
            freeByteCount = try reader.integer("free", in: ByteCount.range)
            rails = try reader.string("rails")
            try reader.finish()
            // Digests are put side by side.
            if digest.utf8.contains(UInt8(ascii: " ")) {
                throw JSONError(.unexpectedKind, "its digest is none")
            }
        } catch {
            throw EngineError(
                .hostFailed, "host \(host) sent an offer that cannot be read: \(error)")
        }
    }
}
