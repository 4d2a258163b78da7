public import CheckpointDevice
import Glibc
import Synchronization

/// The C library's calls behind a ``HostTable`` that counts what is open and can fail a chosen call.
///
/// C functions capture nothing, so there is one state for the process: ``with(_:freeByteCount:_:)``
/// lets one test at a time use it.
public enum FaultyHostTable {
    public enum Call: Hashable, Sendable, CaseIterable {
        case open, close, truncate, lock, makeDirectory, unlink, removeDirectory, status, space
    }

    /// Which call fails, and with which error number.
    public struct Fault: Hashable, Sendable {
        public let call: Call
        /// The first occurrence that fails, counted from 1.
        public let occurrence: Int
        public let errorNumber: CInt
        /// Whether all later occurrences fail as well.
        public let isLasting: Bool

        /// `errorNumber` is EIO unless given.
        public init(
            _ call: Call, occurrence: Int = 1, errorNumber: CInt? = nil, isLasting: Bool = false
        ) {
            self.call = call
            self.occurrence = occurrence
            self.errorNumber = errorNumber ?? EIO
            self.isLasting = isLasting
        }
    }

    /// What the calls have left behind.
    public struct Report: Hashable, Sendable {
        public var descriptors: Set<CInt> = []
        public var files: Set<String> = []
        public var directories: Set<String> = []
        public var counts: [Call: Int] = [:]

        /// Nothing is open, and every file and directory has been removed.
        public var isClean: Bool { descriptors.isEmpty && files.isEmpty && directories.isEmpty }
    }

    private struct State {
        var report = Report()
        var fault: Fault?
        var freeByteCount: Int?
    }

    private static let turn = Mutex(())
    private static let state = Mutex(State())

    /// Runs `body` with the table and returns what is left when it has ended, by return or by throw.
    /// Whatever `body` makes has to die in it. `freeByteCount` is told instead of the file system's.
    public static func with(
        _ fault: Fault? = nil, freeByteCount: Int? = nil, _ body: (HostTable) throws -> Void
    ) -> (report: Report, error: (any Error)?) {
        turn.withLock { _ in
            state.withLock { $0 = State(fault: fault, freeByteCount: freeByteCount) }
            var failure: (any Error)?
            do { try body(table) } catch { failure = error }
            return (report, failure)
        }
    }

    /// What has happened so far in the running `body`.
    public static var report: Report { state.withLock { $0.report } }
}

// MARK: - The table

extension FaultyHostTable {
    /// Counts the call; `false`, with `errno` set, when it has to fail.
    private static func proceeds(_ call: Call) -> Bool {
        let errorNumber: CInt? = state.withLock { state in
            let count = state.report.counts[call, default: 0] + 1
            state.report.counts[call] = count
            guard let fault = state.fault, fault.call == call else { return nil }
            let isHit = fault.isLasting ? count >= fault.occurrence : count == fault.occurrence
            return isHit ? fault.errorNumber : nil
        }
        guard let errorNumber else { return true }
        errno = errorNumber
        return false
    }

    private static func note(_ change: (inout Report) -> Void) {
        state.withLock { change(&$0.report) }
    }

    // SAFETY of the closures below: paths are the C strings that the table's callers guarantee, and
    // every pointer is passed on to the C library's function of the same contract.
    private static let table = unsafe HostTable(
        open: { path, flags, mode in
            guard proceeds(.open) else { return -1 }
            let descriptor = unsafe HostTable.system.open(path, flags, mode)
            guard descriptor >= 0, let path = unsafe path else { return descriptor }
            let name = unsafe String(cString: path)
            note { report in
                report.descriptors.insert(descriptor)
                if flags & O_CREAT != 0 { report.files.insert(name) }
            }
            return descriptor
        },
        close: { descriptor in
            // A close that reports an error has closed all the same, as on Linux.
            let isHit = !proceeds(.close)
            let number = errno
            note { $0.descriptors.remove(descriptor) }
            let code = HostTable.system.close(descriptor)
            guard isHit else { return code }
            errno = number
            return -1
        },
        truncate: { proceeds(.truncate) ? HostTable.system.truncate($0, $1) : -1 },
        lock: { proceeds(.lock) ? HostTable.system.lock($0, $1) : -1 },
        makeDirectory: { path, mode in
            guard proceeds(.makeDirectory) else { return -1 }
            let code = unsafe HostTable.system.makeDirectory(path, mode)
            if code == 0, let path = unsafe path {
                let name = unsafe String(cString: path)
                note { $0.directories.insert(name) }
            }
            return code
        },
        unlink: { path in
            guard proceeds(.unlink) else { return -1 }
            let code = unsafe HostTable.system.unlink(path)
            if code == 0, let path = unsafe path {
                let name = unsafe String(cString: path)
                note { $0.files.remove(name) }
            }
            return code
        },
        removeDirectory: { path in
            guard proceeds(.removeDirectory) else { return -1 }
            let code = unsafe HostTable.system.removeDirectory(path)
            if code == 0, let path = unsafe path {
                let name = unsafe String(cString: path)
                note { $0.directories.remove(name) }
            }
            return code
        },
        status: { descriptor, result in
            proceeds(.status) ? unsafe HostTable.system.status(descriptor, result) : -1
        },
        space: { path, result in
            guard proceeds(.space) else { return -1 }
            let code = unsafe HostTable.system.space(path, result)
            if code == 0, let free = state.withLock({ $0.freeByteCount }) {
                unsafe result?.pointee.f_frsize = 1
                unsafe result?.pointee.f_bavail = UInt(free)
            }
            return code
        })
}
