import Glibc

/// A library opened by name, and its functions. It is never closed: its code may run until the process ends.
@safe
public struct NativeLibrary {
    /// None of the names could be loaded.
    public struct Failure: Error {
        public let names: [String]
        /// What the loader said of each.
        public let answers: [String]
    }

    private let handle: UnsafeMutableRawPointer
    /// The name it was opened under.
    public let name: String
    /// Functions that were asked for and are not there.
    public private(set) var missing: [String] = []

    /// Opens the first of `names` that loads.
    public init(anyOf names: [String]) throws(Failure) {
        var answers: [String] = []
        for name in names {
            // SAFETY: the bridged string lives for the call; dlerror's text is copied at once.
            if let handle = unsafe dlopen(name, RTLD_NOW | RTLD_LOCAL) {
                unsafe self.handle = unsafe handle
                self.name = name
                return
            }
            answers.append(unsafe dlerror().map { unsafe String(cString: $0) } ?? name)
        }
        throw Failure(names: names, answers: answers)
    }

    /// The address of the function `symbol`; notes a missing one.
    public mutating func address(of symbol: String) -> UnsafeMutableRawPointer? {
        // SAFETY: the library stays loaded, and the bridged string lives for the call.
        guard let address = unsafe dlsym(handle, symbol) else {
            missing.append(symbol)
            return nil
        }
        return unsafe address
    }

    /// The function `symbol` as a C function pointer of type `Function`; notes a missing one.
    ///
    /// The caller guarantees that `Function` is the `@convention(c)` type of that symbol.
    public mutating func resolve<Function>(
        _ symbol: String, as type: Function.Type = Function.self
    ) -> Function? {
        // SAFETY: a function's address has the representation of a C function pointer, and the
        // caller vouches for the type.
        guard let address = unsafe address(of: symbol) else { return nil }
        return unsafe unsafeBitCast(address, to: type)
    }
}
