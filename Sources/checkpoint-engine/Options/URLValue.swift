import ArgumentParser
import CheckpointModel

/// A URL as it was given. What is wrong with it is told when it is asked for: before anything is done.
struct URLValue: CommandValue {
    static let rule = "a URL such as http://127.0.0.1:8000"
    private let parsed: Result<HTTPURL, AddressFlaw>

    init?(argument: String) {
        parsed = Result { () throws(AddressFlaw) in try HTTPURL(argument) }
    }

    /// Throws a usage error that names `flag` and its variable.
    func url(_ flag: String) throws -> HTTPURL {
        do throws(AddressFlaw) {
            return try parsed.get()
        } catch {
            throw ValidationError(
                "The value of '--\(flag)' (or the variable \(Variables.name(flag))) is no URL: "
                    + "\(error)")
        }
    }
}
