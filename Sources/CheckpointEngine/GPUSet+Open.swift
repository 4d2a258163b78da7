import CheckpointDevice
import CheckpointModel
import CheckpointTransport
import Glibc
import Logging

extension GPUSet {
    private static let pinThreadCountMax = 16

    /// The GPUs that `configuration` asks for; `nil` where engines are on the CPU.
    static func open(_ configuration: GPUConfiguration, _ logger: Logger) throws(DeviceError)
        -> GPUSet?
    {
        guard configuration.device != .host else { return nil }
        let driver: CudaDriver
        do throws(DeviceError) {
            driver = try CudaDriver(
                table: CudaTable(libraryNames: configuration.cudaLibraryNames))
        } catch {
            guard configuration.device == .auto, error.code == .libraryMissing else { throw error }
            logger.debug("no CUDA driver", metadata: ["reason": "\(error)"])
            return nil
        }
        if driver.devices.isEmpty, configuration.device == .auto { return nil }
        let cores = max(1, Int(sysconf(CInt(_SC_NPROCESSORS_ONLN))))
        let set = try GPUSet(
            driver,
            pinThreadCount: configuration.pinThreadCount ?? min(pinThreadCountMax, cores))
        logger.info(
            "using GPUs",
            metadata: [
                "count": "\(set.gpus.count)", "cuda": "\(driver.version)",
                "ids": "\(set.gpus.map(\.id.description).joined(separator: ","))",
            ])
        return set
    }
}
