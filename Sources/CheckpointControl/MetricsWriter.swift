/// Writes metric families one after the other.
struct MetricsWriter {
    enum Kind: String {
        case counter, gauge
    }

    typealias Labels = [(name: String, value: String)]

    private(set) var text = ""

    mutating func counter(_ name: String, _ help: String, _ value: some CustomStringConvertible) {
        family(name, .counter, help, [([], value.description)])
    }

    mutating func gauge(
        _ name: String, _ help: String, labels: Labels = [], _ value: some CustomStringConvertible
    ) {
        family(name, .gauge, help, [(labels, value.description)])
    }

    mutating func family(
        _ name: String, _ kind: Kind, _ help: String, _ samples: [(Labels, String)]
    ) {
        let name = "checkpoint_engine_" + name
        text += "# HELP \(name) \(Self.escaped(help, quotes: false))\n"
        text += "# TYPE \(name) \(kind.rawValue)\n"
        for (labels, value) in samples {
            text += name
            if !labels.isEmpty {
                let pairs = labels.map { "\($0.name)=\"\(Self.escaped($0.value, quotes: true))\"" }
                text += "{" + pairs.joined(separator: ",") + "}"
            }
            text += " \(value)\n"
        }
    }

    /// A backslash and a line feed are escaped everywhere, a quotation mark in label values.
    static func escaped(_ text: String, quotes: Bool) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
