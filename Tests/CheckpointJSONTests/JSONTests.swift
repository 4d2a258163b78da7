import CheckpointJSON
import CheckpointTesting
import Testing

private let limits = JSONLimits(byteCountMax: 1 << 20, depthMax: 8, stringByteCountMax: 1 << 16)

struct JSONValueTests {
    @Test(arguments: [
        #"{"a":1,"b":[true,false,null],"c":{"d":"e"}}"#, "[]", "{}", #""""#, "0", "-7",
        #"["\b\f\n\r\t\u001f\"\\ /é😀"]"#, "9223372036854775807", "-9223372036854775808",
    ])
    func encodesWhatItParsed(_ text: String) throws {
        let value = try JSONValue.parse(Array(text.utf8), limits: limits)
        #expect(String(decoding: value.encoded(), as: UTF8.self) == text)
    }

    @Test func readsEscapesAndWhiteSpace() throws {
        let text = " { \"\\u0041\\uD83D\\uDE00\\/\" : [ 1 , 2.5e1 ] } "
        let value = try JSONValue.parse(Array(text.utf8), limits: limits)
        #expect(value == .object(JSONObject([("A😀/", .array([.integer(1), .number(25)]))])))
    }

    @Test(arguments: [
        "", " ", "{", "}", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "'a'",
        "01", "-", "+1", "1.", ".5", "1e", "nul", "truex", "[1] 2", "\"\\x\"", "\"\\u12\"",
        "\"\\uD800\"", "\"\\uDC00\"", "\"\\uD800\\u0041\"", "\"a\nb\"", "\"", "{\"a\":1,\"a\":2}",
        "9223372036854775808x", "NaN", "[1 2]", "{\"a\":1 \"b\":2}", "\u{feff}{}",
    ])
    func refuses(_ text: String) {
        #expect(throws: JSONError.self) {
            try JSONValue.parse(Array(text.utf8), limits: limits)
        }
    }

    @Test func refusesInvalidUTF8() {
        for bytes: [UInt8] in [
            [0x22, 0x80, 0x22], [0x22, 0xc0, 0xaf, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22],
            [0x22, 0xf4, 0x90, 0x80, 0x80, 0x22], [0x22, 0xe2, 0x82, 0x22],
        ] {
            #expect(throws: JSONError.self) { try JSONValue.parse(bytes, limits: limits) }
        }
    }

    @Test func limitsHold() {
        let deep = String(repeating: "[", count: 9) + String(repeating: "]", count: 9)
        #expect(throws: JSONError.self) { try JSONValue.parse(Array(deep.utf8), limits: limits) }
        let long = "\"" + String(repeating: "x", count: 1 << 17) + "\""
        #expect(throws: JSONError.self) { try JSONValue.parse(Array(long.utf8), limits: limits) }
        let large = String(repeating: " ", count: 1 << 20) + "1"
        #expect(throws: JSONError.self) { try JSONValue.parse(Array(large.utf8), limits: limits) }
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func randomValuesSurviveARoundTrip(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let value = Self.random(depth: 4, using: &generator)
        let parsed = try JSONValue.parse(value.encoded(), limits: limits)
        #expect(parsed == value, "seed \(seed)")
    }

    @Test(arguments: 0..<300 as Range<UInt64>)
    func mutatedTextNeverTraps(_ seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var bytes = Self.random(depth: 4, using: &generator).encoded()
        for _ in 0..<3 where !bytes.isEmpty {
            bytes[Int.random(in: bytes.indices, using: &generator)] =
                UInt8.random(in: 0...255, using: &generator)
        }
        if let value = try? JSONValue.parse(bytes, limits: limits) {
            #expect((try? JSONValue.parse(value.encoded(), limits: limits)) == value)
        }
    }

    private static func random(depth: Int, using generator: inout SeededGenerator) -> JSONValue {
        switch Int.random(in: 0..<(depth > 0 ? 6 : 4), using: &generator) {
        case 0: return .null
        case 1: return .bool(Bool.random(using: &generator))
        case 2: return .integer(Int.random(in: Int.min...Int.max, using: &generator))
        case 3: return .string(text(using: &generator))
        case 4:
            return .array(
                (0..<Int.random(in: 0...4, using: &generator)).map { _ in
                    random(depth: depth - 1, using: &generator)
                })
        default:
            let count = Int.random(in: 0...4, using: &generator)
            return .object(
                JSONObject(
                    (0..<count).map { index in
                        (
                            text(using: &generator) + "\(index)",
                            random(depth: depth - 1, using: &generator)
                        )
                    }))
        }
    }

    private static func text(using generator: inout SeededGenerator) -> String {
        let scalars = (0..<Int.random(in: 0...6, using: &generator)).compactMap { _ in
            Unicode.Scalar(UInt32.random(in: 0...0x10ffff, using: &generator))
        }
        return String(String.UnicodeScalarView(scalars))
    }
}

struct JSONObjectReaderTests {
    private func reader(_ text: String) throws -> JSONObjectReader {
        guard case .object(let object) = try JSONValue.parse(Array(text.utf8), limits: limits)
        else { throw JSONError(.syntax, "the test's text is no object") }
        return JSONObjectReader(object)
    }

    @Test func readsExactlyTheFields() throws {
        var reader = try reader(#"{"name":"a","count":3,"list":[1]}"#)
        #expect(try reader.string("name") == "a")
        #expect(try reader.integer("count", in: 0...9) == 3)
        #expect(throws: JSONError.self) { try reader.finish() }
        #expect(try reader.array("list") == [.integer(1)])
        try reader.finish()
    }

    @Test func refusesMissingAndWrongKinds() throws {
        var reader = try reader(#"{"name":1,"flag":true,"count":3}"#)
        #expect(throws: JSONError.self) { try reader.string("other") }
        #expect(throws: JSONError.self) { try reader.string("name") }
        #expect(throws: JSONError.self) { try reader.integer("flag", in: 0...9) }
        let outside = #expect(throws: JSONError.self) { try reader.integer("count", in: 4...9) }
        #expect(
            outside?.description == "the key \"count\": expected an integer from 4 to 9, got 3")
    }
}
