import CheckpointEngine
import CheckpointPull
import FoundationEssentials

extension SourceOrder {
    /// The sources that were named, and the daemons of the metas; none where these name only memory.
    func allAddresses(_ engine: CheckpointEngine) async throws -> [SourceAddress] {
        var urls: [String] = []
        if let metasFile { urls += try await engine.loadMetas(try Self.read(metasFile)) }
        if let metasURL { urls += try await engine.loadMetas(from: metasURL, token: token) }
        let known = Set(addresses.map(\.url))
        let more = urls.filter { !known.contains($0) }
        return addresses + more.compactMap { try? SourceAddress(url: $0, token: token) }
    }

    private static func read(_ path: String) throws -> [UInt8] {
        guard !path.hasSuffix(".pkl") else {
            throw CommandError(
                "\(path) is a pickle, which could run any code: it is not read. Load it where you trust "
                    + "it, with the package that wrote it, and write its JSON form: "
                    + "pydantic.TypeAdapter(dict[int, MemoryBufferMetaList]).dump_json(metas)",
                code: .usage)
        }
        guard let contents = FileManager.default.contents(atPath: path) else {
            throw CommandError("the metas file \(path) cannot be read", code: .usage)
        }
        return Array(contents)
    }
}
