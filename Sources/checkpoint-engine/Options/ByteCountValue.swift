import ArgumentParser

/// A number of bytes with an optional unit: `512MiB`, `4G`, `1000000`.
struct ByteCountValue: CommandValue {
    static let rule = "a number of bytes above 0, with KiB, MiB, GiB or TiB if wanted, as in 512MiB"
    let byteCount: Int

    init?(argument: String) {
        let digits = argument.prefix { ("0"..."9").contains($0) }
        let unit = argument.dropFirst(digits.count).lowercased()
        let shift: Int
        switch unit {
        case "", "b": shift = 0
        case "k", "kib": shift = 10
        case "m", "mib": shift = 20
        case "g", "gib": shift = 30
        case "t", "tib": shift = 40
        default: return nil
        }
        guard let count = Int(digits), count > 0 else { return nil }
        let (product, overflow) = count.multipliedReportingOverflow(by: 1 << shift)
        guard !overflow else { return nil }
        self.byteCount = product
    }
}
