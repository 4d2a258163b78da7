/// Writes the few elements that a picture is made of, and escapes what it is given.
struct SVGWriter {
    typealias Attributes = KeyValuePairs<String, String>

    /// What was written so far, in UTF-8.
    private(set) var bytes: [UInt8] = []
    private var openNames: [String] = []

    mutating func begin(
        _ name: String, _ attributes: Attributes, frame: SVGFrame? = nil
    ) {
        tag(name, frame?.attributes ?? [:], attributes, end: ">")
        openNames.append(name)
    }

    /// Ends the element that was begun last.
    mutating func end() {
        guard let name = openNames.popLast() else { return }
        raw("</\(name)>\n")
    }

    /// An element that has nothing in it.
    mutating func element(_ name: String, _ attributes: Attributes) {
        tag(name, attributes, end: "/>\n")
    }

    /// What the element that was begun last is called.
    mutating func title(_ text: String) {
        raw("<title>\(Self.escaped(text))</title>")
    }

    /// Text whose baseline begins at a point, or is anchored there; a second part may follow it
    /// on the same line, in its own style.
    mutating func text(
        _ text: String, _ x: Double, _ y: Double, _ attributes: Attributes = [:],
        then rest: String? = nil, _ restAttributes: Attributes = [:]
    ) {
        let place: Attributes = [
            "x": NumberText.coordinate(x), "y": NumberText.coordinate(y),
        ]
        tag("text", place, attributes, end: ">")
        raw(Self.escaped(text))
        if let rest {
            tag("tspan", restAttributes, end: ">")
            raw(Self.escaped(rest) + "</tspan>")
        }
        raw("</text>\n")
    }

    mutating func rectangle(_ frame: SVGFrame, _ attributes: Attributes) {
        tag("rect", frame.attributes, attributes, end: "/>\n")
    }

    private mutating func tag(_ name: String, _ attributes: Attributes..., end: String) {
        raw("<\(name)")
        for (key, value) in attributes.joined() {
            raw(" \(key)=\"\(Self.escaped(value))\"")
        }
        raw(end)
    }

    private mutating func raw(_ text: String) { bytes.append(contentsOf: text.utf8) }

    /// For text and for attributes in quotation marks. What XML cannot hold becomes U+FFFD.
    static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "\t", "\n", "\r": result += " "
            case "\u{0}"..."\u{1F}", "\u{FFFE}", "\u{FFFF}": result += "\u{FFFD}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

/// A rectangle, in pixels.
struct SVGFrame {
    let x: Double
    let y: Double
    let width: Double
    let height: Double

    var attributes: SVGWriter.Attributes {
        [
            "x": NumberText.coordinate(x), "y": NumberText.coordinate(y),
            "width": NumberText.coordinate(width), "height": NumberText.coordinate(height),
        ]
    }
}
