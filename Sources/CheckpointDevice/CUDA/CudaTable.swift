import CNative
import CheckpointNative

/// The functions of the CUDA driver API, as one table: what hardware this process has is decided by
/// whoever fills it.
///
/// The driver's own library fills it in production; a simulation of it on shared memory fills it in tests.
/// `@unchecked Sendable`: it holds addresses of functions, which never change.
@safe
public struct CudaTable: @unchecked Sendable {
    let raw: ce_cuda_table
    /// What the functions were taken from.
    public let source: String

    public static let libraryNamesDefault = ["libcuda.so.1", "libcuda.so"]

    /// Opens the first of `libraryNames` that loads and resolves every function; names all that are missing.
    public init(libraryNames: [String] = Self.libraryNamesDefault) throws(DeviceError) {
        var library: NativeLibrary
        do throws(NativeLibrary.Failure) {
            library = try NativeLibrary(anyOf: libraryNames)
        } catch {
            throw DeviceError(
                .libraryMissing,
                "the CUDA driver was not found: none of the libraries "
                    + "\(error.names.joined(separator: ", ")) can be loaded "
                    + "(\(error.answers.joined(separator: "; "))); install NVIDIA's driver, or "
                    + "update engines on the CPU with --device host")
        }
        // SAFETY: each address is that of the function of the name that it is asked by.
        try unsafe self.init(source: library.name) { unsafe library.address(of: $0) }
    }

    /// Takes every function from `address`, which gives the address of a function by its exported name.
    public init(
        source: String, address: (String) -> UnsafeMutableRawPointer?
    ) throws(DeviceError) {
        var table = ce_cuda_table()
        var missing: [String] = []
        for index in 0..<ce_cuda_function_count() {
            // SAFETY: the names are constant strings; the index is one of the table's.
            let name = unsafe String(cString: ce_cuda_function_name(index))
            if let found = unsafe address(name) {
                unsafe ce_cuda_set_function(&table, index, found)
            } else {
                missing.append(name)
            }
        }
        guard missing.isEmpty else {
            throw DeviceError(
                .libraryMissing,
                "the CUDA driver \(source) lacks \(missing.joined(separator: ", ")); a driver for "
                    + "CUDA 12 or later is needed")
        }
        self.raw = table
        self.source = source
    }

    /// Throws unless `code` is success. `what` completes "cannot …".
    func check(_ code: CInt, _ call: String, _ what: @autoclosure () -> String)
        throws(DeviceError)
    {
        guard code != CInt(CE_CUDA_SUCCESS) else { return }
        throw DeviceError(
            code == CInt(CE_CUDA_ERROR_OUT_OF_MEMORY) ? .insufficientMemory : .deviceFailed,
            "cannot \(what()): \(call) failed with \(text(of: code))")
    }

    /// `CUDA_ERROR_OUT_OF_MEMORY (2), out of memory`.
    func text(of code: CInt) -> String {
        var name: UnsafePointer<CChar>?
        var meaning: UnsafePointer<CChar>?
        // SAFETY: the driver gives constant strings, or leaves the pointers as they are.
        unsafe _ = raw.cuGetErrorName(code, &name)
        unsafe _ = raw.cuGetErrorString(code, &meaning)
        let known = unsafe name.map { unsafe String(cString: $0) } ?? "an unknown error"
        let text = unsafe meaning.map { unsafe ", " + String(cString: $0) } ?? ""
        return "\(known) (\(code))\(text)"
    }
}
