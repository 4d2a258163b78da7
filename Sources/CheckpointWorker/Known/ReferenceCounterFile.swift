import CNative
import CheckpointNative
import Glibc
import Synchronization

/// The shared file in which workers that use torch count down when they let go of exported memory:
/// `/dev/shm/checkpoint-engine-counters-UID-PID-RANDOM`. The last reference unmaps and removes it.
///
/// Source: `RefcountedMapAllocator` and `CudaIPCSentData` of torch 2.13. A 32-bit count of
/// the file's mappings is at byte 0: workers add and subtract theirs, and whoever makes it zero
/// removes the file, so that the owner's one keeps it. From byte 64 on come 10,000 counters of 64
/// bits, one of them for each export: 1 while the worker maps the memory, subtracted from when it
/// no longer does. Both sides need the same `/dev/shm` and the same user.
///
/// `@unchecked Sendable`: path and address never change; counters are claimed under the lock.
@safe
public final class ReferenceCounterFile: @unchecked Sendable {
    /// How many exports can be outstanding at a time.
    public static let slotCount = 10_000

    private static let headerByteCount = 64
    private static let byteCount = headerByteCount + slotCount * MemoryLayout<Int64>.stride
    private static let directory = "/dev/shm"
    private static let attemptCountMax = 16

    /// What workers open it by, as `shm_open` takes it.
    public let name: String
    /// Holds the lock that keeps the file from being swept.
    private let descriptor: CInt
    private let address: UnsafeMutableRawPointer
    private let nextSlot = Mutex(0)

    private var path: String { Self.directory + name }

    private static var prefix: String { "checkpoint-engine-counters-\(getuid())-" }

    /// Removes the files that nobody has locked: those of processes that are gone.
    public static func sweep() {
        for name in (try? DirectoryListing.names(in: directory)) ?? []
        where name.hasPrefix(prefix) {
            let path = "\(directory)/\(name)"
            // SAFETY: the bridged string lives for the call.
            let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            // It is removed under the lock: whoever makes one looks for that.
            guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { continue }
            // SAFETY: the bridged string lives for the call.
            _ = unsafe unlink(path)
        }
    }

    /// Makes the file, with all counters zero.
    public init() throws(WorkerError) {
        let (name, descriptor) = try Self.make()
        let path = Self.directory + name
        do throws(WorkerError) {
            unsafe address = try unsafe Self.map(descriptor, path)
        } catch {
            // SAFETY: the bridged string lives for the call.
            _ = unsafe unlink(path)
            close(descriptor)
            throw error
        }
        self.name = name
        self.descriptor = descriptor
        // SAFETY: the mapping is longer than its header, and nobody else knows the file yet.
        unsafe address.storeBytes(of: 1, as: Int32.self)
    }

    /// Makes an empty file and locks it, so that no sweep takes it for a dead owner's. Other processes may see
    /// this one's folder and not its id.
    private static func make() throws(WorkerError) -> (name: String, descriptor: CInt) {
        for _ in 0..<attemptCountMax {
            let name = "/\(prefix)\(getpid())-\(UInt32.random(in: 0 ... .max))"
            let path = directory + name
            let descriptor = unsafe ce_open(
                path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
            guard descriptor >= 0 else { throw failure("open", path, errno) }
            var status = stat()
            // SAFETY: the result is written to a variable that outlives the call.
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0,
                unsafe fstat(descriptor, &status) == 0, status.st_nlink > 0
            {
                return (name, descriptor)
            }
            // A sweep came between.
            close(descriptor)
        }
        throw failure("flock", directory, EWOULDBLOCK)
    }

    deinit {
        // SAFETY: mapped in `init` with this length, unmapped once; the bridged string lives for
        // the call.
        unsafe munmap(address, Self.byteCount)
        _ = unsafe unlink(path)
        close(descriptor)
    }

    /// Claims a free counter for one export to one worker and sets it to 1. Counters are taken in
    /// turn, so that a released one stays unused for as long as it can. Throws when none is free.
    public func export() throws(WorkerError) -> (name: String, slot: Int) {
        let slot = nextSlot.withLock { next -> Int? in
            for distance in 0..<Self.slotCount {
                let slot = (next + distance) % Self.slotCount
                guard value(of: slot) == 0 else { continue }
                // SAFETY: an aligned place inside the mapping. No worker knows of a counter that is
                // 0.
                unsafe address.storeBytes(
                    of: 1, toByteOffset: Self.offset(of: slot), as: Int64.self)
                next = (slot + 1) % Self.slotCount
                return slot
            }
            return nil
        }
        guard let slot else {
            throw WorkerError(
                .callFailed,
                "none of the \(Self.slotCount) reference counters in \(path) is free: workers hold "
                    + "memory of earlier updates; restart them")
        }
        return (name, slot)
    }

    /// Whether the worker that the export of `slot` went to no longer maps its memory.
    public func isReleased(_ slot: Int) -> Bool { value(of: slot) <= 0 }

    /// Exports that were not released yet.
    public var outstanding: Int {
        (0..<Self.slotCount).count { !isReleased($0) }
    }

    private static func offset(of slot: Int) -> Int {
        precondition((0..<slotCount).contains(slot), "there is no such counter")
        return headerByteCount + slot * MemoryLayout<Int64>.stride
    }

    /// Other processes subtract from the counter at any time. They do so without atomic operations,
    /// so that a plain load of an aligned word is all there is to do: it is either the old value or
    /// the new.
    private func value(of slot: Int) -> Int64 {
        // SAFETY: an aligned place inside the mapping, which lives as long as `self`.
        unsafe address.load(fromByteOffset: Self.offset(of: slot), as: Int64.self)
    }

    /// Gives the new file its length and maps it. Its memory is taken now, for a write to it would
    /// end the process when there is none left.
    private static func map(
        _ descriptor: CInt, _ path: String
    ) throws(WorkerError) -> UnsafeMutableRawPointer {
        var number = EINTR
        while number == EINTR { number = posix_fallocate(descriptor, 0, off_t(byteCount)) }
        guard number == 0 else { throw failure("posix_fallocate", path, number) }

        // SAFETY: a fresh mapping touches no memory that is in use.
        let address = unsafe mmap(
            nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw failure("mmap", path, errno)
        }
        return unsafe address
    }

    private static func failure(_ call: String, _ path: String, _ number: CInt) -> WorkerError {
        WorkerError(
            .callFailed,
            "cannot make the reference counters \(path): \(call) failed with errno \(number)")
    }
}
