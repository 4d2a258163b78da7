import CheckpointEngine
import CheckpointWorker
import FoundationEssentials

/// Native libraries and devices.
extension Examination {
    func zeroMQ() -> Finding {
        do {
            let context = try ZeroMQContext(libraryNames: configuration.zeroMQLibraryNames)
            return Finding("ZeroMQ", .ok, "version \(context.version), \(context.libraryPath)")
        } catch {
            return Finding(
                "ZeroMQ", .fail, "\(error.message)",
                remedy: "install it: apt-get install libzmq5 (Debian, Ubuntu), dnf install zeromq "
                    + "(Fedora), or pip install pyzmq; or name the file with --zmq-library")
        }
    }

    func cuda() -> Finding {
        switch LoadableLibrary.open(["libcuda.so.1"]) {
        case .loaded(let name): Finding("CUDA driver", .info, name)
        case .failed:
            Finding("CUDA driver", .info, "libcuda.so.1 not found: engines on the CPU only")
        }
    }

    func nccl() -> Finding {
        switch LoadableLibrary.open(["libnccl.so.2"] + ncclNames) {
        case .loaded(let name): Finding("NCCL", .info, name)
        case .failed: Finding("NCCL", .info, "libnccl.so.2 not found: not needed on the CPU")
        }
    }

    /// From the driver's own listing, so that no device is woken.
    func gpus() -> Finding {
        let root = "/proc/driver/nvidia/gpus"
        let addresses = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
        guard !addresses.isEmpty else { return Finding("GPUs", .info, "none") }
        var counts: [String: Int] = [:]
        for address in addresses {
            let text = SmallFile.text("\(root)/\(address)/information") ?? ""
            let model = text.split(separator: "\n").first { $0.hasPrefix("Model:") }
            let name = model?.dropFirst(6).drop { $0 == " " || $0 == "\t" } ?? "unknown model"
            counts[String(name), default: 0] += 1
        }
        let list = counts.sorted { $0.key < $1.key }.map { "\($0.value) x \($0.key)" }
        return Finding("GPUs", .info, list.joined(separator: ", "))
    }
}
