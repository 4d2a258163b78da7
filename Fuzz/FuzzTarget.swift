/// The entry point of libFuzzer: hostile bytes as a safetensors header, as JSON and as messages.
///
/// Compiled as one module with the sources of CheckpointModel, CheckpointJSON and CheckpointFiles, so that
/// the coverage of all of them guides the fuzzer.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzTestOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
    fuzzHeader(bytes)
    fuzzJSON(bytes)
    return 0
}

/// A header that is accepted keeps the invariants that later code relies on.
private func fuzzHeader(_ bytes: [UInt8]) {
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
private func fuzzJSON(_ bytes: [UInt8]) {
    let limits = JSONLimits(byteCountMax: 1 << 16, depthMax: 16, stringByteCountMax: 1 << 12)
    guard let value = try? JSONValue.parse(bytes, limits: limits) else { return }
    let roomy = JSONLimits(byteCountMax: 1 << 20, depthMax: 16, stringByteCountMax: 1 << 16)
    precondition(
        (try? JSONValue.parse(value.encoded(), limits: roomy)) == value,
        "a value does not survive a round trip")
}
