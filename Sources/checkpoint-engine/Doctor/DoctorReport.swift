/// All findings of `doctor`.
struct DoctorReport: Encodable {
    let findings: [Finding]

    private enum CodingKeys: String, CodingKey {
        case ok, version, findings
    }

    var isMissingSomething: Bool { findings.contains { $0.level == .fail } }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(!isMissingSomething, forKey: .ok)
        try container.encode(Version.current, forKey: .version)
        try container.encode(findings, forKey: .findings)
    }

    /// A line for each finding, its remedy below it.
    func text() -> String {
        let width = findings.map(\.subject.count).max() ?? 0
        var text = ""
        for finding in findings {
            let level = finding.level.rawValue.uppercased()
            text +=
                level + String(repeating: " ", count: 6 - level.count) + finding.subject
                + String(repeating: " ", count: width - finding.subject.count + 2)
                + finding.detail + "\n"
            if let remedy = finding.remedy {
                text += String(repeating: " ", count: width + 8) + "-> " + remedy + "\n"
            }
        }
        return text
    }
}
