/// Text in pictures. Which font shows it is unknown: widths are estimates, rather too large.
enum SVGText {
    static func width(_ text: String, fontSize: Double) -> Double {
        Double(text.count) * fontSize * 0.6
    }

    /// The text, or as much of its beginning as fits with an ellipsis behind it.
    static func fitted(_ text: String, width: Double, fontSize: Double) -> String {
        guard Self.width(text, fontSize: fontSize) > width else { return text }
        let count = max(0, Int(width / (fontSize * 0.6)) - 1)
        return text.prefix(count) + "…"
    }

    /// The number at the end of a name, `3` of `bucket 3`; a name without one as it is.
    static func barLabel(_ name: String) -> String {
        let digits = name.reversed().prefix { ("0"..."9").contains($0) }
        return digits.isEmpty ? name : String(digits.reversed())
    }
}
