public import CheckpointDevice
import CheckpointNative
import Synchronization

/// The GPUs of this host, and which of them are in use by an update.
public final class GPUSet: Sendable {
    /// In the order in which the process sees them.
    public let gpus: [GPU]
    public let pinned: PinnedFiles
    private let busy = Mutex<Set<Int>>([])

    /// Makes a context and streams on every GPU of `driver`, all at once: it takes long.
    public init(_ driver: CudaDriver, pinThreadCount: Int) throws(DeviceError) {
        guard !driver.devices.isEmpty else {
            throw DeviceError(
                .deviceFailed,
                "the CUDA driver shows no GPU; check CUDA_VISIBLE_DEVICES, or update engines on "
                    + "the CPU with --device host")
        }
        let made = Mutex<[Int: Result<GPU, DeviceError>]>([:])
        BlockingThread.runAll("ckpt-context", count: driver.devices.count) { index in
            let device = driver.devices[index]
            let result = Result { () throws(DeviceError) in
                try GPU(device, table: driver.table)
            }
            made.withLock { $0[index] = result }
        }
        gpus = try driver.devices.map { device throws(DeviceError) in
            guard let result = made.withLock({ $0[device.index] }) else {
                throw DeviceError(.deviceFailed, "no context was made on \(device)")
            }
            return try result.get()
        }
        pinned = PinnedFiles(context: gpus[0].context, threadCount: pinThreadCount)
    }

    /// Bytes of device memory that are held between updates, on all GPUs.
    public var heldByteCount: Int { gpus.reduce(0) { $0 + $1.heldByteCount } }

    /// A GPU cannot be taken.
    public struct Refusal: Error, Sendable {
        public let message: String
    }

    /// Takes the GPUs with these indices for one update, `body`, and gives them back when it has ended, however
    /// it ends. With `releasesMemory`, and after a failure, nothing is kept on them. Throws ``Refusal`` when one
    /// is taken already, or is not there; none is taken then.
    public func withTaken<Value>(
        _ indices: [Int], releasesMemory: Bool, _ body: () async throws -> Value
    ) async throws -> Value {
        try take(indices)
        var releases = true
        defer {
            if releases { for index in indices { gpus[index].release() } }
            busy.withLock { $0.subtract(indices) }
        }
        let value = try await body()
        releases = releasesMemory
        return value
    }

    private func take(_ indices: [Int]) throws(Refusal) {
        let wrong: Int? = busy.withLock { busy in
            if let wrong = indices.first(where: { busy.contains($0) || !gpus.indices.contains($0) })
            {
                return wrong
            }
            busy.formUnion(indices)
            return nil
        }
        guard let wrong else { return }
        throw Refusal(
            message: gpus.indices.contains(wrong)
                ? "\(gpus[wrong].device) is in use by another update"
                : "there is no GPU \(wrong): the daemon sees \(gpus.count), numbered from 0")
    }

    /// Gives the device memory of every GPU that is not in use back.
    public func releaseMemory() {
        let idle = busy.withLock { busy in gpus.indices.filter { !busy.contains($0) } }
        for index in idle { gpus[index].release() }
    }
}
