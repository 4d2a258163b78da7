public import CheckpointDevice
public import CheckpointModel
public import CheckpointWorker
import Glibc

/// The parameters of a reference worker on a GPU, packed in one allocation.
public final class DeviceReferenceMemory: ReferenceTarget {
    /// Copies of slices that start there are fast.
    private static let alignment = 256

    public let source = MemoryKind.cuda
    public private(set) var layout: ReferenceLayout?
    private let context: CudaContext
    private let stream: CudaStream
    private let rank: Int
    private let worldSize: Int
    private var parameters: DeviceMemory?
    private var segments: [DeviceSegment] = []
    /// The server's memory, by handle, while an update runs.
    private var imported: [[UInt8]: ImportedMemory] = [:]

    /// The GPU's name in updates.
    public var id: DeviceID { context.device.id }

    /// Keeps the parameters on the GPU `index` of `driver`.
    public init(_ driver: CudaDriver, index: Int, rank: Int, worldSize: Int) throws(WorkerError) {
        guard driver.devices.indices.contains(index) else {
            throw WorkerError(
                .invalidArgument,
                "there is no GPU \(index): this process sees \(driver.devices.count), numbered "
                    + "from 0; check CUDA_VISIBLE_DEVICES")
        }
        do throws(DeviceError) {
            context = try CudaContext(driver.devices[index], table: driver.table)
            stream = try CudaStream(context)
        } catch {
            throw WorkerError(error)
        }
        self.rank = rank
        self.worldSize = worldSize
    }

    public func open(_ catalog: CatalogMessage) throws(WorkerError) {
        imported = [:]
        guard case .cuda(let segments) = catalog.memory else {
            throw WorkerError(.protocolViolation, "the catalog names no memory of a GPU")
        }
        let layout = ReferenceLayout(
            catalog.tensors, rank: rank, worldSize: worldSize, alignment: Self.alignment)
        do throws(DeviceError) {
            for segment in segments where imported[segment.handle] == nil {
                imported[segment.handle] = try ImportedMemory(context, handle: segment.handle)
            }
            if self.layout?.byteCount != layout.byteCount {
                // The old ones go first: both may not fit.
                parameters = nil
                self.layout = nil
            }
            if parameters == nil {
                parameters = try DeviceMemory(context, byteCount: layout.byteCount)
            }
        } catch {
            throw WorkerError(error)
        }
        self.segments = segments
        self.layout = layout
    }

    public func load(_ range: Range<Int>) throws(WorkerError) -> Int {
        guard let layout, let parameters, !imported.isEmpty else {
            throw WorkerError(.protocolViolation, "a bucket came before the catalog")
        }
        try layout.check(range)
        do throws(DeviceError) {
            try stream.bindThread()
            for place in range {
                try queueCopy(of: place, layout, to: parameters.address + layout.offsets[place])
            }
            try stream.synchronize()
        } catch {
            throw WorkerError(error)
        }
        return layout.byteCount(of: range)
    }

    public func release() { imported = [:] }

    public func drop() { imported = [:] }

    /// Nothing of the server's is kept between updates.
    public func dropStale() {}

    public func fill(_ byte: UInt8) throws(WorkerError) {
        guard let parameters else { return }
        do throws(DeviceError) {
            try stream.bindThread()
            try stream.fill(parameters.address, with: byte, byteCount: parameters.byteCount)
            try stream.synchronize()
        } catch {
            throw WorkerError(error)
        }
    }

    public func readers(_ count: Int) throws(WorkerError) -> [any ReferenceReader] {
        guard let parameters else { return [] }
        return try (0..<count).map { _ throws(WorkerError) in try DeviceReader(parameters) }
    }

    /// Queues the copy of one slice from the server's memory.
    private func queueCopy(
        of place: Int, _ layout: ReferenceLayout, to target: DeviceAddress
    ) throws(DeviceError) {
        let tensor = layout.tensors[place]
        let slice = layout.slices[place]
        let segment = segments[tensor.shard]
        guard slice.byteCount > 0, let memory = imported[segment.handle] else { return }
        let source = memory.address + (segment.dataOffset + tensor.range.offset + slice.offset)
        if slice.rowCount == 1 {
            try stream.copy(from: source, to: target, byteCount: slice.rowByteCount)
        } else {
            try stream.copyRows(
                from: source, stride: slice.rowStride, to: target, stride: slice.rowByteCount,
                rowByteCount: slice.rowByteCount, rowCount: slice.rowCount)
        }
    }
}

/// Copies what is read to the host.
private final class DeviceReader: ReferenceReader {
    private let memory: DeviceMemory
    private let stream: CudaStream

    init(_ memory: DeviceMemory) throws(WorkerError) {
        self.memory = memory
        do throws(DeviceError) { stream = try CudaStream(memory.context) } catch {
            throw WorkerError(error)
        }
    }

    func read(at offset: Int, byteCount: Int, _ body: (Span<UInt8>) -> Void) throws(WorkerError) {
        guard offset >= 0, byteCount > 0, offset + byteCount <= memory.byteCount else {
            throw WorkerError(.invalidArgument, "the worker has no bytes at \(offset)")
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
        defer { unsafe buffer.deallocate() }
        guard let target = buffer.baseAddress else { return }
        do throws(DeviceError) {
            try stream.bindThread()
            // SAFETY: the range lies inside the allocation, which `memory` keeps; the buffer has so many
            // bytes and outlives the copy, which is awaited.
            try unsafe stream.copy(
                from: memory.address + offset, toHost: target, byteCount: byteCount)
            try stream.synchronize()
        } catch {
            throw WorkerError(error)
        }
        let bytes = unsafe UnsafeBufferPointer(
            start: target.assumingMemoryBound(to: UInt8.self), count: byteCount)
        unsafe body(bytes.span)
    }
}

extension WorkerError {
    init(_ error: DeviceError) { self.init(.callFailed, error.description) }
}
