import CheckpointJSON
import CheckpointModel

/// The validated header of one safetensors file.
///
/// Source: the safetensors format: eight bytes with the length of a JSON object, little-endian, the object,
/// then the data section, which the tensors fill without holes and without overlaps.
struct SafetensorsHeader: Hashable, Sendable {
    struct Tensor: Hashable, Sendable {
        let name: String
        let dtype: DType
        let shape: Shape
        let range: ByteRange
    }

    static let lengthByteCount = 8
    /// The format's own limit.
    static let byteCountMax = 100_000_000
    static let tensorCountMax = 2_000_000
    static let nameByteCountMax = 4096
    static let dimensionCountMax = 64
    static let metadataKey = "__metadata__"
    static let limits = JSONLimits(
        byteCountMax: byteCountMax, depthMax: 3, stringByteCountMax: 16 << 20)

    /// What may stand before the object: the format says nothing of it, and its own library takes it.
    private static let blanks = Array(" \n\r\t".utf8)

    /// Ordered by offset; they fill the data section. That names are unique is the caller's to check, who has those
    /// of all files.
    let tensors: [Tensor]
    let metadata: [String: String]

    /// Parses the JSON object of a file whose data section has `dataByteCount` bytes. `path` is for
    /// messages.
    init(_ bytes: [UInt8], dataByteCount: Int, path: String) throws(FilesError) {
        let start = bytes.first { !Self.blanks.contains($0) }
        guard start == UInt8(ascii: "{") else {
            throw FilesError(
                .malformed, path, "the header does not start with {; this is no safetensors file")
        }
        do {
            var parser = try SafetensorsHeaderParser(bytes)
            try parser.parse()
            metadata = parser.metadata
            tensors = parser.tensors.sorted {
                ($0.range.offset, $0.range.end) < ($1.range.offset, $1.range.end)
            }
        } catch {
            throw FilesError(.malformed, path, "the header is invalid", cause: "\(error)")
        }
        try checkFilling(dataByteCount, path)
    }

    private func checkFilling(_ dataByteCount: Int, _ path: String) throws(FilesError) {
        var end = 0
        for tensor in tensors {
            guard tensor.range.offset == end else {
                throw FilesError(
                    .malformed, path,
                    "the tensor \(tensor.name) starts at byte \(tensor.range.offset) of the data; the "
                        + "tensor before it ends at \(end), and there may be neither holes nor overlaps"
                )
            }
            end = tensor.range.end
        }
        guard end == dataByteCount else {
            throw FilesError(
                .wrongLength, path,
                "the header describes \(end) bytes of data, the file has \(dataByteCount); "
                    + (end > dataByteCount
                        ? "it is truncated, copy it again" : "it has more than its tensors"))
        }
    }
}
