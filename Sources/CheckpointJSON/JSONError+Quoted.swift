extension JSONError {
    /// A key or name from a hostile text, fit for a message: quoted, escaped, cut after 200 bytes.
    public static func quoted(_ text: String) -> String {
        guard text.utf8.count > 200 else { return text.debugDescription }
        var prefix = ""
        for scalar in text.unicodeScalars.prefix(200) { prefix.unicodeScalars.append(scalar) }
        return prefix.debugDescription + "…"
    }
}
