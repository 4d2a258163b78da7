import Glibc

/// The entry point of libFuzzer: hostile bytes for one of the parsers, which `FUZZ_TARGET` names.
///
/// Compiled as one module with the sources of the parsers, so that the coverage of all of them guides the fuzzer.
/// Nothing that is parsed may trap, and what is accepted has to keep what later code relies on.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzTestOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    target.run(unsafe [UInt8](UnsafeBufferPointer(start: start, count: count)))
    return 0
}

/// What a run feeds.
private enum FuzzTarget: String, CaseIterable {
    case header, json, index, requests, worker, catalog, lease, metas, hosts, agent, url

    func run(_ bytes: [UInt8]) {
        switch self {
        case .header: fuzzHeader(bytes)
        case .json: fuzzJSON(bytes)
        case .index: fuzzIndex(bytes)
        case .requests: fuzzRequests(bytes)
        case .worker: fuzzWorkerMessages(bytes)
        case .catalog: fuzzCatalog(bytes)
        case .lease: fuzzLeases(bytes)
        case .metas: fuzzMetas(bytes)
        case .hosts: fuzzHosts(bytes)
        case .agent: fuzzAgent(bytes)
        case .url: fuzzURL(bytes)
        }
    }
}

private let target: FuzzTarget = {
    let name = unsafe getenv("FUZZ_TARGET").map { unsafe String(cString: $0) } ?? ""
    guard let target = FuzzTarget(rawValue: name) else {
        let known = FuzzTarget.allCases.map(\.rawValue).joined(separator: ", ")
        fatalError("set FUZZ_TARGET to one of \(known)")
    }
    return target
}()

/// What two of the targets have for themselves, in files that are not compiled here.
extension Duration {
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
