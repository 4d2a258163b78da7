import ArgumentParser
import CheckpointControl

/// Flags of commands that take requests over HTTP.
struct ListenOptions: ParsableArguments {
    static let addressDefault = ControlAddress.tcp(host: "127.0.0.1", port: 19_731)

    @Option(
        name: .customLong("listen"),
        help: Variables.help(
            "listen",
            "The address to listen on; port 0 takes a free one, told in the log (default: "
                + "127.0.0.1:19731).", "host:port"))
    var listen: ListenValue?

    @Option(
        name: .customLong("token-file"),
        help: Variables.help(
            "token-file",
            "A file with the token that requests have to carry: \(BearerToken.rule).", "file"),
        completion: .file())
    var tokenFile: PathValue?

    @Option(
        name: .customLong("until-exit-of"),
        help: Variables.help(
            "until-exit-of",
            "Stop, as if by SIGTERM, when the process of this id has ended: for a daemon that belongs "
                + "to a trainer.", "pid"))
    var owner: ProcessValue?

    func address(_ variables: Variables) throws -> ControlAddress {
        try variables.value(listen, "listen")?.address ?? Self.addressDefault
    }

    /// The token that requests have to carry; throws where one is needed and missing.
    func token(for address: ControlAddress, _ variables: Variables) throws -> BearerToken? {
        let token = try variables.value(tokenFile, "token-file").map {
            try TokenFile.read($0.path)
        }
        guard address.isLocal || token != nil else {
            throw ValidationError(
                "Other machines can reach \(address): set '--token-file', or listen on 127.0.0.1 "
                    + "or a unix socket.")
        }
        return token
    }
}
