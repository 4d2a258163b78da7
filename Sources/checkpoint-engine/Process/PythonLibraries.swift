import FoundationEssentials

/// Native libraries inside Python packages.
enum PythonLibraries {
    /// Files of the ZeroMQ library inside installed copies of pyzmq, those of the activated
    /// environment first.
    static func zeroMQ(_ variables: Variables) -> [String] {
        files(in: "pyzmq.libs", startingWith: "libzmq", variables)
    }

    /// Files of the NCCL library inside its wheel.
    static func nccl(_ variables: Variables) -> [String] {
        files(in: "nvidia/nccl/lib", startingWith: "libnccl.so", variables)
    }

    private static func files(
        in folder: String, startingWith start: String, _ variables: Variables
    ) -> [String] {
        var prefixes = variables.pythonPrefixes
        for directory in variables.searchPath where exists(directory + "/python3") {
            // An environment's interpreter lies in its `bin`.
            if let slash = directory.lastIndex(of: "/") {
                prefixes.append(String(directory[..<slash]))
            }
        }
        prefixes += ["/usr/local", "/usr"]
        var seen: Set<String> = []
        var found: [String] = []
        for prefix in prefixes where seen.insert(prefix).inserted {
            for packages in packageDirectories(prefix) {
                let directory = packages + "/" + folder
                found += names(directory).filter { $0.hasPrefix(start) }
                    .map { directory + "/" + $0 }
            }
        }
        return found
    }

    private static func packageDirectories(_ prefix: String) -> [String] {
        let lib = prefix + "/lib"
        let pythons = names(lib).filter { $0.hasPrefix("python3") }
        return pythons.flatMap { ["\(lib)/\($0)/site-packages", "\(lib)/\($0)/dist-packages"] }
    }

    private static func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: path)
    }

    /// The sorted names in a directory; none where it cannot be read.
    private static func names(_ directory: String) -> [String] {
        let names = try? FileManager.default.contentsOfDirectory(atPath: directory)
        return (names ?? []).sorted()
    }
}
