import ArgumentParser

/// How the weights travel. The names are those of the Python package.
enum UpdateMethod: String, CommandValue, CaseIterable {
    /// From this host's shared memory to all workers of its engines.
    case broadcast
    /// From the memory of other hosts.
    case p2p
    /// Both, one after the other.
    case all
}
