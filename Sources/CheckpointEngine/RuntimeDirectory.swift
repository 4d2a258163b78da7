import CheckpointDevice

/// The directory in which the sockets of workers lie: in a private directory of the process, a file for each
/// worker of an update.
public enum RuntimeDirectory {
    /// What fits into the address of a unix socket, without the terminating zero.
    private static let addressByteCountMax = 107
    /// A socket of the millionth update, of an engine's session for its last model.
    private static let socketNameLongest = "999999-1023-4095.999"

    /// The longest path that leaves room for the names of sockets.
    public static var pathByteCountMax: Int {
        let directory = PrivateDirectory.nameLongest(prefix: PoolNames.socketPrefix)
        return addressByteCountMax - "/\(directory)/\(socketNameLongest)".utf8.count
    }

    /// The socket of a worker: `worker` tells which one of the update `id`.
    static func socketPath(in directory: String, update id: String, worker: String) -> String {
        "\(directory)/\(id.drop { !$0.isNumber })-\(worker)"
    }

    /// Throws for a path that is too long. Without the check a socket could not be bound, or a worker could
    /// not connect to it.
    static func check(_ path: String) throws(EngineError) {
        let count = path.utf8.count
        guard count <= pathByteCountMax else {
            throw EngineError(
                .invalidArgument,
                "the runtime directory \(path) has \(count) bytes, and at most \(pathByteCountMax) leave "
                    + "room for the paths of sockets: choose a shorter one with --runtime-dir, such as "
                    + "/tmp")
        }
    }
}
