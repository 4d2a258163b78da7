import Glibc

/// Whether a native library can be loaded.
enum LoadableLibrary {
    case loaded(name: String)
    case failed

    /// Loads the first of the names that works. It stays loaded, as in every use of this program.
    static func open(_ names: [String]) -> LoadableLibrary {
        for name in names {
            // SAFETY: the bridged string lives for the call; the handle is not used.
            if unsafe dlopen(name, RTLD_LAZY | RTLD_LOCAL) != nil { return .loaded(name: name) }
        }
        return .failed
    }
}
