/// Numbers as pictures show them, always with a point and never with an exponent.
enum NumberText {
    /// Rounded to `places` digits after the point. Values beyond 10^12 are told as that.
    static func fixed(_ value: Double, places: Int) -> String {
        let scale = (0..<places).reduce(1) { scale, _ in scale * 10 }
        let bounded = value.isNaN ? 0 : min(max(value, -1e12), 1e12)
        let units = Int((bounded * Double(scale)).rounded())
        let sign = units < 0 ? "-" : ""
        let whole = String(units.magnitude / scale.magnitude)
        guard places > 0 else { return sign + whole }
        return sign + whole + "." + padded(units.magnitude % scale.magnitude, to: places)
    }

    /// As short as two digits after the point allow: `3`, `3.5`, `3.52`.
    static func coordinate(_ value: Double) -> String {
        trimmed(fixed(value, places: 2))
    }

    /// Such as `3.21 ms`, `12.3 ms`, and from one second on `1.23 s`.
    static func duration(_ seconds: Double) -> String {
        let milliseconds = seconds * 1e3
        if milliseconds >= 999.95 { return fixed(seconds, places: 2) + " s" }
        return fixed(milliseconds, places: milliseconds < 9.995 ? 2 : 1) + " ms"
    }

    /// Exact: 1_500_000 is `1.5`.
    static func milliseconds(nanoseconds: Int) -> String {
        let whole = String(nanoseconds / 1_000_000)
        return trimmed(whole + "." + padded((nanoseconds % 1_000_000).magnitude, to: 6))
    }

    private static func padded(_ digits: UInt, to count: Int) -> String {
        let text = String(digits)
        return String(repeating: "0", count: max(0, count - text.utf8.count)) + text
    }

    /// Takes text with a point in it.
    private static func trimmed(_ text: String) -> String {
        var text = text
        while text.last == "0" { text.removeLast() }
        if text.last == "." { text.removeLast() }
        return text == "-0" ? "0" : text
    }
}
