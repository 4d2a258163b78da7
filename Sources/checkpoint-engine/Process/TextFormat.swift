/// Numbers and tables for people.
enum TextFormat {
    /// With a fixed number of decimals, rounded.
    static func fixed(_ value: Double, _ decimals: Int) -> String {
        guard value.isFinite, abs(value) < 1e12 else { return "\(value)" }
        let scale = (0..<decimals).reduce(1.0) { scale, _ in scale * 10 }
        let scaled = Int64((abs(value) * scale).rounded())
        let sign = value < 0 && scaled > 0 ? "-" : ""
        let digits = String(scaled)
        guard decimals > 0 else { return sign + digits }
        let padded = String(repeating: "0", count: max(0, decimals + 1 - digits.count)) + digits
        return sign + padded.dropLast(decimals) + "." + padded.suffix(decimals)
    }

    /// `1.50 GB`; units of 1000, as in the rates.
    static func bytes(_ count: Int) -> String {
        let units = ["bytes", "kB", "MB", "GB", "TB", "PB"]
        var value = Double(count)
        var unit = 0
        while value >= 999.995, unit + 1 < units.count {
            value /= 1000
            unit += 1
        }
        return unit == 0 ? "\(count) bytes" : "\(fixed(value, 2)) \(units[unit])"
    }

    /// `1 file`, `2 files`.
    static func count(_ count: Int, _ noun: String) -> String {
        "\(count) \(noun)\(count == 1 ? "" : "s")"
    }

    /// Bytes in a second, in GB/s; empty where it would mean nothing.
    static func rate(_ bytes: Int, _ seconds: Double) -> String {
        guard bytes > 0, seconds > 0 else { return "" }
        return fixed(Double(bytes) / seconds / 1e9, 2)
    }

    /// Rows of equal length as aligned columns. Those in `right` are aligned to the right.
    static func table(_ rows: [[String]], right: Set<Int>) -> String {
        let rows = rows.map { $0.map { PrintableText.escaped($0) } }
        var widths: [Int] = []
        for row in rows {
            for (column, cell) in row.enumerated() {
                if column == widths.count { widths.append(0) }
                widths[column] = max(widths[column], cell.count)
            }
        }
        var text = ""
        for row in rows {
            let cells = row.enumerated().map { column, cell in
                let space = String(repeating: " ", count: widths[column] - cell.count)
                return right.contains(column) ? space + cell : cell + space
            }
            let line = cells.joined(separator: "  ")
            let end = line.lastIndex { $0 != " " }.map { line.index(after: $0) } ?? line.startIndex
            text += line[..<end] + "\n"
        }
        return text
    }
}
