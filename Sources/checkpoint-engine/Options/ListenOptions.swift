import ArgumentParser
import CheckpointControl

/// Flags of commands that take requests over HTTP.
struct ListenOptions: ParsableArguments {
    @Option(
        name: .customLong("listen"),
        help: Variables.help(
            "listen",
            "The address to listen on, which needs a token; port 0 takes a free one, told in the log "
                + "(default: a unix socket that only this user can reach, told in the log).",
            "host:port"))
    var listen: ListenValue?

    @Option(
        name: .customLong("token-file"),
        help: Variables.help(
            "token-file",
            "A file with the token that requests have to carry: \(BearerToken.rule). Only its owner "
                + "may be able to read it.", "file"),
        completion: .file())
    var tokenFile: PathValue?

    @Option(
        name: .customLong("reader-token-file"),
        help: Variables.help(
            "reader-token-file",
            "A file with a second token, for hosts that read checkpoints and for monitoring: who has it "
                + "changes nothing.", "file"),
        completion: .file())
    var readerTokenFile: PathValue?

    @Flag(
        name: .customLong("no-token"),
        help: Variables.help(
            "no-token",
            "Ask for no token on a loopback address: every user of this machine may give orders."))
    var asksNobody: Bool = false

    @Option(
        name: .customLong("until-exit-of"),
        help: Variables.help(
            "until-exit-of",
            "Stop, as if by SIGTERM, when the process of this id has ended: for a daemon that belongs "
                + "to a trainer.", "pid"))
    var owner: ProcessValue?

    /// Where to listen; `runtimeDirectory` is for the socket that is the default.
    func address(_ variables: Variables, runtimeDirectory: String) throws -> ControlAddress {
        if let address = try variables.value(listen, "listen")?.address { return address }
        return .unix(
            path: try DefaultSocket.path(variables, runtimeDirectory: runtimeDirectory))
    }

    /// Who may call; throws where a token is needed and missing.
    func access(at address: ControlAddress, _ variables: Variables) throws -> ControlAccess {
        let asksNobody = try variables.isOn(asksNobody ? true : nil, "no-token")
        let token = try variables.value(tokenFile, "token-file").map { try TokenFile.read($0.path) }
        let reader = try variables.value(readerTokenFile, "reader-token-file").map {
            try TokenFile.read($0.path)
        }
        guard let token else {
            guard reader == nil else {
                throw ValidationError(
                    "'--reader-token-file' needs '--token-file', the token of those who give orders."
                )
            }
            return try withoutToken(address, asksNobody)
        }
        guard !asksNobody else {
            throw ValidationError("'--token-file' and '--no-token' exclude each other: keep one.")
        }
        guard token.text != reader?.text else {
            throw ValidationError(
                "'--token-file' and '--reader-token-file' have the same token: a reader could give "
                    + "orders.")
        }
        return .tokens(administrator: token, reader: reader)
    }

    private func withoutToken(_ address: ControlAddress, _ asksNobody: Bool) throws
        -> ControlAccess
    {
        switch address {
        case .unix: return .everyone
        case .tcp:
            guard address.isLocal else {
                throw ValidationError(
                    "Other machines can reach \(address): set '--token-file', or listen on 127.0.0.1 "
                        + "or a unix socket.")
            }
            guard asksNobody else {
                throw ValidationError(
                    "Every user of this machine can reach \(address): set '--token-file', or listen on "
                        + "a unix socket ('--uds', the default). '--no-token' lets all of them give orders."
                )
            }
            return .everyone
        }
    }
}
