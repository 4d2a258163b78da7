import ArgumentParser

/// A duration in seconds, at most a day.
struct SecondsValue: CommandValue {
    static let rule = "a number of seconds from 0 to 86400"
    static let secondsMax = 86_400.0
    let seconds: Double

    init?(argument: String) {
        guard let seconds = Double(argument), (0...Self.secondsMax).contains(seconds) else {
            return nil
        }
        self.seconds = seconds
    }
}
