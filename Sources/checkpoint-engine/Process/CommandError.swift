import ArgumentParser
import CheckpointControl
import CheckpointEngine

/// Why a subcommand failed; the target's only error type. Wrong usage is ArgumentParser's
/// `ValidationError` instead.
struct CommandError: Error {
    /// What the process ends with.
    enum Code: Int32 {
        case failure = 1
        case usage = 2
    }

    let code: Code
    /// One or more sentences that name the object, what was expected and found, and the remedy.
    let message: String
    /// The text of the failure underneath, for example a worker's traceback.
    let cause: String?

    init(_ message: String, cause: String? = nil, code: Code = .failure) {
        self.code = code
        self.message = message
        self.cause = cause
    }

    /// Any failure that a subcommand let through.
    init(_ error: any Error) {
        switch error {
        case let error as CommandError: self = error
        case let error as EngineError: self.init(error.message, cause: error.cause)
        case let error as ControlError: self.init(error.message, cause: error.cause)
        default: self.init(String(describing: error))
        }
    }

    /// What standard error gets: the message on one line, whatever names are in it, and then the cause.
    var text: String {
        let line = "error: " + PrintableText.escaped(message)
        guard let cause, !cause.isEmpty else { return line }
        return "\(line)\n\(cause)"
    }

    /// What the process ends with after any failure.
    static func exitCode(_ error: any Error) -> CInt {
        switch error {
        case let code as ExitCode: code.rawValue
        case is ValidationError: Code.usage.rawValue
        default: CommandError(error).code.rawValue
        }
    }
}
