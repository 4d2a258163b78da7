/// The version of the program, told by `--version`, `GET /v1/version` and the metrics.
enum Version {
    static let current = "0.1.0"
}
