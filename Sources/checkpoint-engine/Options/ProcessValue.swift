import ArgumentParser
import Glibc

/// The id of a process.
struct ProcessValue: CommandValue {
    static let rule = "a process id"
    let id: pid_t

    init?(argument: String) {
        guard let id = pid_t(argument), id > 0 else { return nil }
        self.id = id
    }
}
