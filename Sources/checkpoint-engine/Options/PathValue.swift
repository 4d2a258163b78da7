import ArgumentParser

/// The path of a file or directory.
struct PathValue: CommandValue {
    static let rule = "a path of 1 to 4095 bytes"
    let path: String

    init?(argument: String) {
        guard (1...4095).contains(argument.utf8.count), !argument.utf8.contains(0) else {
            return nil
        }
        self.path = argument
    }
}
