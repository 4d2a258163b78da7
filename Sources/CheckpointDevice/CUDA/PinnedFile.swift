import CNative
import CheckpointNative
import Glibc
import Synchronization

/// A file in shared memory, mapped and pinned for all GPUs: what they copy from at full speed.
///
/// Owned by whoever registered the checkpoint and by ``PinnedFiles``; the last reference unpins and unmaps.
/// The file is pinned in chunks, by several threads at once; a copy must not cross the border of two.
@safe
public final class PinnedFile: Sendable {
    public static let chunkByteCount = 1 << 30

    public let path: String
    public let inode: UInt64
    private let file: FileMapping
    private let context: CudaContext
    /// Whether its last page was there when the file was pinned, as it is after every real pin.
    private let hadTail: Bool

    public var byteCount: Int { file.byteCount }
    private var address: UnsafeMutableRawPointer { unsafe file.address }

    /// Maps the file at `path`, which has to be the one of `inode` and `byteCount`, and pins it with
    /// `threadCount` threads. Keeps nothing when it throws.
    ///
    /// The file is pinned for reading where the driver can: pinning for writing counts as a write to it.
    init(
        path: String, inode: UInt64, byteCount: Int, context: CudaContext, threadCount: Int
    ) throws(DeviceError) {
        self.path = path
        self.inode = inode
        let canRead = try context.canPinForReading()
        let file = try Self.map(path, inode: inode, byteCount: byteCount, writes: !canRead)
        let flags =
            CUnsignedInt(CE_CUDA_HOST_REGISTER_PORTABLE)
            | (canRead ? CUnsignedInt(CE_CUDA_HOST_REGISTER_READ_ONLY) : 0)
        let job = unsafe PinJob(
            base: UInt(bitPattern: file.address), byteCount: byteCount, flags: flags,
            context: context)
        BlockingThread.runAll("ckpt-pin", count: min(threadCount, job.chunkCount)) { _ in
            job.work()
        }
        if let failure = job.failure {
            // Not in `deinit`, which does not run before everything is there.
            withExtendedLifetime(file) { job.undo() }
            throw failure
        }
        self.file = file
        self.context = context
        hadTail = PageMap.isPresent(unsafe UInt(bitPattern: file.address), at: byteCount - 1)
    }

    /// Whether its pages are still those of the file. One that was made shorter, were it for a moment, has lost
    /// them: the GPUs would go on to copy what was pinned, whatever is written to the file since.
    var isWhole: Bool {
        !hadTail || PageMap.isPresent(unsafe UInt(bitPattern: file.address), at: byteCount - 1)
    }

    deinit {
        try? context.makeCurrent()
        for offset in stride(from: 0, to: byteCount, by: Self.chunkByteCount) {
            // SAFETY: each chunk was pinned in `init`; the mapping ends after this.
            unsafe _ = context.table.raw.cuMemHostUnregister(address + offset)
        }
    }

    /// The bytes from `offset` on; the caller stays inside the file and keeps this object.
    @unsafe
    public func address(at offset: Int) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(address + offset)
    }

    /// How many bytes from `offset` on lie in one chunk.
    public func runByteCount(at offset: Int) -> Int {
        Self.chunkByteCount - offset % Self.chunkByteCount
    }

    private static func map(_ path: String, inode: UInt64, byteCount: Int, writes: Bool)
        throws(DeviceError) -> FileMapping
    {
        do throws(FileFailure) {
            let file = try FileMapping(path, inode: inode, byteCount: byteCount, writes: writes)
            // Huge pages pin faster where the system allows them in shared memory; a refusal is fine.
            // SAFETY: the range is that of the mapping.
            unsafe madvise(file.address, max(byteCount, 1), MADV_HUGEPAGE)
            return file
        } catch {
            switch error {
            case .call(let call, let number):
                throw DeviceError(
                    call == "open" ? .unusablePath : .systemCall, "cannot map \(path)", call: call,
                    errorNumber: number)
            case .changed:
                throw DeviceError(
                    .unusablePath, "\(path) is another file by now; register the checkpoint again")
            }
        }
    }
}

/// The chunks of one file, pinned by several threads.
private final class PinJob: Sendable {
    private struct State {
        var pinned: [Int] = []
        var failure: DeviceError?
    }

    private let base: UInt
    private let byteCount: Int
    private let flags: CUnsignedInt
    private let context: CudaContext
    private let next = Atomic(0)
    private let state = Mutex(State())

    var chunkCount: Int {
        (byteCount + PinnedFile.chunkByteCount - 1) / PinnedFile.chunkByteCount
    }
    var failure: DeviceError? { state.withLock { $0.failure } }

    init(base: UInt, byteCount: Int, flags: CUnsignedInt, context: CudaContext) {
        self.base = base
        self.byteCount = byteCount
        self.flags = flags
        self.context = context
    }

    func work() {
        while state.withLock({ $0.failure == nil }) {
            let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
            guard index < chunkCount else { return }
            do throws(DeviceError) {
                try pin(index * PinnedFile.chunkByteCount)
            } catch {
                state.withLock { $0.failure = $0.failure ?? error }
            }
        }
    }

    func undo() {
        for offset in state.withLock({ $0.pinned }) {
            // SAFETY: pinned by `pin`, and unpinned once.
            unsafe _ = context.table.raw.cuMemHostUnregister(pointer(at: offset))
        }
    }

    private func pin(_ offset: Int) throws(DeviceError) {
        let count = min(PinnedFile.chunkByteCount, byteCount - offset)
        try context.makeCurrent()
        // SAFETY: the range lies in the mapping that the file owns.
        let code = unsafe context.table.raw.cuMemHostRegister_v2(
            pointer(at: offset), count, flags)
        try context.table.check(
            code, "cuMemHostRegister_v2",
            "pin \(count) bytes of shared memory (raise the limit of locked memory, ulimit -l)")
        state.withLock { $0.pinned.append(offset) }
    }

    private func pointer(at offset: Int) -> UnsafeMutableRawPointer? {
        unsafe UnsafeMutableRawPointer(bitPattern: base + UInt(offset))
    }
}
