import ArgumentParser
import CheckpointControl
import FoundationEssentials

/// The file that holds the daemon's token.
enum TokenFile {
    static func read(_ path: String) throws -> BearerToken {
        guard let contents = FileManager.default.contents(atPath: path) else {
            throw CommandError("the token file \(path) cannot be read", code: .usage)
        }
        guard contents.count <= BearerToken.byteCountMax + 16,
            let token = BearerToken(String(decoding: contents, as: UTF8.self))
        else {
            throw CommandError(
                "the token file \(path) has \(contents.count) bytes: expected "
                    + "\(BearerToken.rule). Make one with: openssl rand -hex 32 > \(path)",
                code: .usage)
        }
        return token
    }
}
