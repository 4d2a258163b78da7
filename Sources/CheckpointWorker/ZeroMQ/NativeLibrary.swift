import Glibc

/// A library opened by name, and its functions. It is never closed: its code may run until the process ends.
@safe
struct NativeLibrary {
    private let handle: UnsafeMutableRawPointer
    /// The name it was opened under.
    let name: String
    /// Functions that were asked for and are not there.
    private(set) var missing: [String] = []

    /// Opens the first of `names` that loads; `nil` with the loader's answers when none does.
    static func open(anyOf names: [String]) -> Result<NativeLibrary, WorkerError> {
        var answers: [String] = []
        for name in names {
            // SAFETY: the bridged string lives for the call; dlerror's text is copied at once.
            if let handle = unsafe dlopen(name, RTLD_NOW | RTLD_LOCAL) {
                return .success(unsafe NativeLibrary(handle: handle, name: name))
            }
            answers.append(unsafe dlerror().map { unsafe String(cString: $0) } ?? name)
        }
        return .failure(
            WorkerError(
                .libraryMissing,
                "none of the libraries \(names.joined(separator: ", ")) can be loaded",
                cause: answers.joined(separator: "\n")))
    }

    private init(handle: UnsafeMutableRawPointer, name: String) {
        unsafe self.handle = unsafe handle
        self.name = name
    }

    /// The function `symbol` as a C function pointer of type `Function`; notes a missing one.
    ///
    /// The caller guarantees that `Function` is the `@convention(c)` type of that symbol.
    mutating func resolve<Function>(_ symbol: String, as type: Function.Type = Function.self)
        -> Function?
    {
        // SAFETY: a function's address has the representation of a C function pointer, and the
        // caller vouches for the type; the library stays loaded.
        guard let address = unsafe dlsym(handle, symbol) else {
            missing.append(symbol)
            return nil
        }
        return unsafe unsafeBitCast(address, to: type)
    }
}
