import CNative
public import CheckpointDevice
import CheckpointNative

/// The functions of NCCL, as one table. Source: `nccl.h` of 2.18 and later.
///
/// `@unchecked Sendable`: it holds addresses of functions, which never change.
@safe
public struct NcclTable: @unchecked Sendable {
    let raw: ce_nccl_table
    /// The name that the library was opened under.
    public let source: String
    /// For example 22809.
    public let version: Int

    /// Opens the first of `libraryNames` that loads and resolves every function; names all that are missing.
    public init(libraryNames: [String]) throws(DeviceError) {
        var library: NativeLibrary
        do throws(NativeLibrary.Failure) {
            library = try NativeLibrary(anyOf: libraryNames)
        } catch {
            throw DeviceError(
                .libraryMissing,
                "NCCL was not found: none of the libraries \(error.names.joined(separator: ", ")) "
                    + "can be loaded (\(error.answers.joined(separator: "; "))); install the "
                    + "package libnccl2 or the Python package nvidia-nccl-cu13, or name the file "
                    + "with --nccl-library")
        }
        var table = ce_nccl_table()
        for index in 0..<ce_nccl_function_count() {
            // SAFETY: the names are constant strings; the address is that of the function of the name.
            let name = unsafe String(cString: ce_nccl_function_name(index))
            if let address = unsafe library.address(of: name) {
                unsafe ce_nccl_set_function(&table, index, address)
            }
        }
        guard library.missing.isEmpty else {
            throw DeviceError(
                .libraryMissing,
                "the NCCL library \(library.name) lacks \(library.missing.joined(separator: ", ")); "
                    + "version 2.18 or later is needed")
        }
        self.raw = table
        source = library.name
        var version: CInt = 0
        // SAFETY: the result is written to a variable that outlives the call.
        unsafe _ = table.ncclGetVersion(&version)
        self.version = Int(version)
    }

    /// A name for a new group of GPUs, 128 bytes; it is made on one host and sent to the others.
    public func makeID() throws(DeviceError) -> [UInt8] {
        var id = ce_nccl_unique_id()
        // SAFETY: the result is written to a variable that outlives the call; it is 128 plain bytes.
        try unsafe check(
            raw.ncclGetUniqueId(&id), 0, "ncclGetUniqueId", "name a group of GPUs")
        return unsafe withUnsafeBytes(of: &id) { unsafe Array($0) }
    }

    /// Throws unless `code` is success. `what` completes "cannot …".
    func check(_ code: CInt, _ communicator: UInt, _ call: String, _ what: String)
        throws(DeviceError)
    {
        guard code != CInt(CE_NCCL_SUCCESS) else { return }
        // SAFETY: NCCL gives constant strings, or the text of the last error of this thread.
        let text = unsafe raw.ncclGetErrorString(code).map { unsafe String(cString: $0) } ?? ""
        let last =
            unsafe raw.ncclGetLastError(communicator).map { unsafe String(cString: $0) } ?? ""
        throw DeviceError(
            code == CInt(CE_NCCL_REMOTE_ERROR) ? .peerLost : .deviceFailed,
            "cannot \(what): \(call) failed with \(text) (\(code))\(last.isEmpty ? "" : ", " + last)"
        )
    }
}
