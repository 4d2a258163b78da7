import Glibc

/// Text files of the kernel's, as in `/proc`.
enum KernelText {
    private static let byteCountMax = 16 << 20
    private static let stepByteCount = 64 << 10

    /// The whole text; `nil` where it cannot be read.
    static func read(_ path: String) -> String? {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var text: [UInt8] = []
        var step = [UInt8](repeating: 0, count: stepByteCount)
        while text.count < byteCountMax {
            // SAFETY: the length passed is that of `step`, which outlives the call.
            let count = unsafe step.withUnsafeMutableBytes { buffer in
                unsafe Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { return nil }
            if count == 0 { break }
            text += step.prefix(count)
        }
        return String(decoding: text, as: UTF8.self)
    }
}
