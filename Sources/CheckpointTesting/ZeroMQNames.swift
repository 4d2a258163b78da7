import FoundationEssentials

/// Where tests find ZeroMQ: the system's library, else the one inside the virtual environment's pyzmq.
public enum ZeroMQNames {
    public static let all: [String] = {
        let root = "\(#filePath)".split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        var names = ["libzmq.so.5", "libzmq.so"]
        let library = "\(root)/.venv/lib"
        for python in TemporaryDirectory.names(in: library) {
            let folder = "\(library)/\(python)/site-packages/pyzmq.libs"
            names += TemporaryDirectory.names(in: folder).filter { $0.hasPrefix("libzmq") }
                .map { "\(folder)/\($0)" }
        }
        return names
    }()
}
