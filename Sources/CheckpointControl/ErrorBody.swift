/// The JSON of every answer that is not a success.
struct ErrorBody: Encodable {
    let error: ControlError

    private enum CodingKeys: String, CodingKey {
        case error, update
    }

    private enum ErrorKeys: String, CodingKey {
        case code, message, cause
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        var body = container.nestedContainer(keyedBy: ErrorKeys.self, forKey: .error)
        try body.encode(error.codeName, forKey: .code)
        try body.encode(error.message, forKey: .message)
        // Present also where there is none: clients need not ask for the key.
        try body.encode(error.cause, forKey: .cause)
        try container.encodeIfPresent(error.update, forKey: .update)
    }
}
