/// A header that is accepted keeps the invariants that later code relies on.
func fuzzHeader(_ bytes: [UInt8]) {
    // The first byte chooses the length of the data section.
    guard let first = bytes.first else { return }
    let dataByteCount = Int(first)
    guard
        let header = try? SafetensorsHeader(
            Array(bytes.dropFirst()), dataByteCount: dataByteCount, path: "fuzz")
    else { return }
    var end = 0
    for tensor in header.tensors {
        precondition(tensor.range.offset == end, "a hole or an overlap was accepted")
        precondition(
            tensor.shape.byteCount(of: tensor.dtype) == tensor.range.byteCount,
            "a length that does not fit the shape was accepted")
        end = tensor.range.end
    }
    precondition(end == dataByteCount, "the data section is not filled")
}

/// What is parsed is written and parsed again as the same value.
func fuzzJSON(_ bytes: [UInt8]) {
    let limits = JSONLimits(byteCountMax: 1 << 16, depthMax: 16, stringByteCountMax: 1 << 12)
    guard let value = try? JSONValue.parse(bytes, limits: limits) else { return }
    let roomy = JSONLimits(byteCountMax: 1 << 20, depthMax: 16, stringByteCountMax: 1 << 16)
    precondition(
        (try? JSONValue.parse(value.encoded(), limits: roomy)) == value,
        "a value does not survive a round trip")
}

/// What an index maps stays beside the index.
func fuzzIndex(_ bytes: [UInt8]) {
    guard let index = try? ShardIndex(bytes, path: "fuzz") else { return }
    precondition(!index.files.isEmpty, "an index of nothing was accepted")
    for name in index.files {
        precondition(
            !name.utf8.contains(UInt8(ascii: "/")) && !name.hasPrefix("."), "a file elsewhere")
    }
}

/// A URL or an address that is accepted is read again as the same one, and has a host and a port that exist.
func fuzzURL(_ bytes: [UInt8]) {
    guard let text = String(validating: bytes, as: UTF8.self) else { return }
    if let url = try? HTTPURL(text) {
        precondition((1...65_535).contains(url.address.port), "an impossible port")
        precondition((try? HTTPURL(url.description)) == url, "a URL does not survive a round trip")
        let whole = url.appending(path: "/health")
        precondition(whole.utf8.allSatisfy { (0x21...0x7e).contains($0) }, "no plain text")
    }
    if let address = try? NetworkAddress(text) {
        precondition(
            (try? NetworkAddress(address.description)) == address,
            "an address does not survive a round trip")
    }
}
