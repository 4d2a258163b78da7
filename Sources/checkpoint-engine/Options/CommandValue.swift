import ArgumentParser

/// The value of a flag or of its variable, checked when it is parsed.
protocol CommandValue: ExpressibleByArgument {
    /// What a value has to look like, for messages about variables.
    static var rule: String { get }
}

extension CommandValue where Self: CaseIterable & RawRepresentable, RawValue == String {
    static var rule: String { allCases.map(\.rawValue).joined(separator: ", ") }
}
