import ArgumentParser
import CheckpointControl

/// The file that holds a daemon's token.
enum TokenFile {
    static func read(_ path: String) throws -> BearerToken {
        // White space around the token is not part of it.
        let contents = try SecretFile.read(
            path, "the token file", byteCountMax: BearerToken.byteCountMax + 16)
        guard let token = BearerToken(String(decoding: contents, as: UTF8.self)) else {
            throw CommandError(
                "the token file \(path) has \(contents.count) bytes: expected "
                    + "\(BearerToken.rule). Make one with: (umask 077; openssl rand -hex 32 > "
                    + "\(path))",
                code: .usage)
        }
        return token
    }
}
