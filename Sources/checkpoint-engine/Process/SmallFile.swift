import FoundationEssentials

/// Text files of the kernel's.
enum SmallFile {
    /// The whole text; `nil` where it cannot be read.
    static func text(_ path: String) -> String? {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
    }
}
