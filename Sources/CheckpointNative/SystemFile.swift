import Glibc

/// Small text files of the kernel's.
public enum SystemFile {
    private static let byteCountMax = 16 << 10

    /// The text of a file, its first 16 KiB at most; `nil` where it cannot be read.
    public static func text(_ path: String) -> String? {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: byteCountMax)
        // SAFETY: the length is that of `bytes`.
        let count = unsafe read(descriptor, &bytes, bytes.count)
        guard count >= 0 else { return nil }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }
}
