import CheckpointDevice
import CheckpointEngine
import CheckpointModel
import CheckpointTransport
import CheckpointWorker

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

    /// The driver and what it shows: no context is made, so that no device is woken. Missing GPUs are
    /// a failure where the flags ask for them.
    func cuda() -> [Finding] {
        let subject = "CUDA driver"
        guard configuration.gpu.device != .host else {
            return [Finding(subject, .info, "not looked for: --device host")]
        }
        let level: Finding.Level = configuration.gpu.device == .cuda ? .fail : .info
        do throws(DeviceError) {
            let table = try CudaTable(libraryNames: configuration.gpu.cudaLibraryNames)
            let driver = try CudaDriver(table: table)
            let version = "\(driver.version / 1000).\(driver.version % 1000 / 10)"
            return [Finding(subject, .ok, "\(table.source), for CUDA \(version)")]
                + gpus(driver, level)
        } catch {
            guard level == .fail else {
                return [Finding(subject, .info, "not found: engines on the CPU only")]
            }
            return [
                Finding(
                    subject, .fail, "\(error.message)",
                    remedy: "install NVIDIA's driver, or leave out --device")
            ]
        }
    }

    private func gpus(_ driver: CudaDriver, _ level: Finding.Level) -> [Finding] {
        guard !driver.devices.isEmpty else {
            return [
                Finding(
                    "GPUs", level, "the driver shows none",
                    remedy: level == .fail ? "check CUDA_VISIBLE_DEVICES" : nil)
            ]
        }
        return driver.devices.map { device in
            Finding(
                "GPU \(device.index)", .ok,
                "\(device.name), \(TextFormat.bytes(device.byteCount)), \(device.id)")
        }
    }

    /// NCCL is needed between hosts only, or where it is asked for.
    func nccl() -> Finding {
        let isNeeded = configuration.hosts != nil || configuration.gpu.exchange == .nccl
        do throws(DeviceError) {
            let table = try NcclTable(libraryNames: configuration.gpu.ncclLibraryNames)
            let version = table.version
            return Finding(
                "NCCL", .ok,
                "\(table.source), version \(version / 10_000).\(version / 100 % 100)."
                    + "\(version % 100)")
        } catch {
            return Finding(
                "NCCL", isNeeded ? .fail : .info,
                isNeeded ? error.message : "not found: needed between hosts only",
                remedy: isNeeded
                    ? "install libnccl2 or pip install nvidia-nccl-cu13, or name the file with "
                        + "--nccl-library" : nil)
        }
    }
}
