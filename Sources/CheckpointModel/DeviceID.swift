/// The device that an engine worker puts weights on, as the worker and the daemon both name it:
/// a GPU by its UUID (`GPU-…`), a CPU worker by its rank in its engine (`CPU-0`).
public struct DeviceID: Hashable, Sendable, CustomStringConvertible {
    public let description: String

    public var isGPU: Bool { description.hasPrefix("GPU-") }

    /// A worker on the CPU; `rank` counts from zero inside one engine instance.
    public static func cpu(rank: Int) -> DeviceID { DeviceID(description: "CPU-\(rank)") }

    /// A GPU; `uuid` has 16 bytes.
    public static func gpu(uuid: [UInt8]) -> DeviceID {
        var text = "GPU"
        for (index, byte) in uuid.enumerated() {
            if [0, 4, 6, 8, 10].contains(index) { text += "-" }
            text += HexText.text(of: [byte])
        }
        return DeviceID(description: text)
    }

    /// Reads `CPU-<rank>` or `GPU-<uuid>`, as ``description`` writes them.
    public init?(_ text: String) {
        let isKnown =
            if text.hasPrefix("CPU-") {
                Int(text.dropFirst(4)).map { text == Self.cpu(rank: $0).description && $0 >= 0 }
                    ?? false
            } else {
                Self.gpu(text) == text
            }
        guard isKnown else { return nil }
        description = text
    }

    private init(description: String) { self.description = description }

    /// The id that the hexadecimal digits of `text` make, whatever its case and dashes were.
    private static func gpu(_ text: String) -> String? {
        guard text.hasPrefix("GPU-"),
            let uuid = HexText.bytes(of: text.dropFirst(4).filter { $0 != "-" }), uuid.count == 16
        else { return nil }
        return gpu(uuid: uuid).description
    }
}
