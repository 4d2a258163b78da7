import ArgumentParser
import Logging

/// What is taken from torchrun's variables.
extension HostOptions {
    /// The place of this process where it shares its host with others that do the same.
    func siblings(_ variables: Variables) throws -> TorchrunPlace? {
        try place(variables) { $0.localCount > 1 }
    }

    /// The place of this process where there are several hosts and the flags do not say all about them.
    func place(_ variables: Variables) throws -> TorchrunPlace? {
        if try variables.value(rendezvous, "rendezvous") != nil,
            try variables.value(hosts, "hosts") != nil,
            try variables.value(rank, "host-rank") != nil
        {
            return nil
        }
        return try place(variables) { $0.hostCount > 1 }
    }

    /// Says in the log what is taken from torchrun.
    func tell(_ logger: Logger, _ variables: Variables) throws {
        guard let place = try place(variables) else { return }
        logger.notice(
            "Takes its place from torchrun's variables; --no-torchrun leaves them out",
            metadata: ["variables": "\(place.text)"])
    }

    /// A place that does not matter is not taken, whoever has it.
    private func place(_ variables: Variables, where matters: (TorchrunPlace) -> Bool) throws
        -> TorchrunPlace?
    {
        let wish = try variables.choice(torchrun, "torchrun")
        if wish == false { return nil }
        guard let place = try TorchrunPlace(variables) else {
            guard wish == nil else {
                throw ValidationError(
                    "'--torchrun' needs the variables that torchrun sets: "
                        + "\(TorchrunPlace.names.joined(separator: ", ")).")
            }
            return nil
        }
        guard matters(place) else { return nil }
        if wish == nil { try place.checkOrigin(variables) }
        return place
    }
}
