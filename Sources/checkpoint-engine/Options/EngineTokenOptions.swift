import ArgumentParser

/// The flag for the token that engines ask for.
struct EngineTokenOptions: ParsableArguments {
    private static let byteCountMax = 4096

    @Option(
        name: .customLong("engine-token-file"),
        help: Variables.help(
            "engine-token-file",
            "A file with the key that the engines ask for, sent to each as \"Authorization: Bearer "
                + "KEY\".", "file"),
        completion: .file())
    var tokenFile: PathValue?

    /// The token, without the line's end; `nil` where there is none.
    func token(_ variables: Variables) throws -> String? {
        guard let path = try variables.value(tokenFile, "engine-token-file")?.path else {
            return nil
        }
        let contents = try SecretFile.read(
            path, "the engines' token file", byteCountMax: Self.byteCountMax + 2)
        var bytes = contents
        while let last = bytes.last, last == 0x0a || last == 0x0d { bytes.removeLast() }
        guard (1...Self.byteCountMax).contains(bytes.count),
            bytes.allSatisfy({ (0x21...0x7e).contains($0) })
        else {
            throw CommandError(
                "the engines' token file \(path) has \(contents.count) bytes: expected one line of "
                    + "1 to \(Self.byteCountMax) visible ASCII characters", code: .usage)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
