/// The device that an engine worker puts weights on, as the worker and the daemon both name it:
/// a GPU by its UUID (`GPU-…`), a CPU worker by its rank in its engine (`CPU-0`).
public struct DeviceID: Hashable, Sendable, CustomStringConvertible {
    public let description: String

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
}
