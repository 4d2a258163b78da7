import Glibc
import Synchronization

/// The file descriptors of this process: how many it may have, and to whom some of them are promised.
///
/// Libraries end the process when the system refuses them one. So whoever calls such a library reserves before
/// what it may open, and what is opened to be kept leaves the last ones free.
public enum Descriptors {
    /// Beyond this many nothing here needs more, while programs that walk through all of theirs become slow.
    private static let limitMax: rlim_t = 1 << 20
    /// What the libraries open for themselves and for calls to engines.
    private static let spareCount = 16
    private static let connectionCountMax = 5400

    private static let promised = Mutex(0)

    /// Raises the limit of this process as far as it may itself: the usual one of 1,024 is meant for programs
    /// that wait with select(2). To be called once, at the start.
    public static func raiseLimit() {
        var limit = current
        let wanted = min(limit.rlim_max, limitMax)
        guard limit.rlim_cur < wanted else { return }
        limit.rlim_cur = wanted
        // SAFETY: the structure is read during the call. A refusal leaves the limit as it was.
        _ = unsafe setrlimit(resource, &limit)
    }

    /// How many descriptors the process may have.
    public static var limit: Int { Int(clamping: current.rlim_cur) }

    /// How many of them connections of clients may take, so that clients cannot use them up.
    public static var connectionShare: Int { min(connectionCountMax, limit / 2) }

    /// How many are open.
    public static var openCount: Int {
        var status = stat()
        // Linux tells the number as the size of the folder since 6.2.
        // SAFETY: the bridged string and the result live for the call.
        if unsafe stat("/proc/self/fd", &status) == 0, status.st_size > 0 {
            return Int(status.st_size)
        }
        // One was open to read the folder. Without one to read it all are in use.
        let names = try? DirectoryListing.names(in: "/proc/self/fd")
        return names.map { $0.count - 1 } ?? limit
    }

    /// Promises `count` descriptors to whoever needs them for `purpose`, as long as the reservation lives.
    /// Throws when they are not free beside what is promised already.
    public static func reserve(_ count: Int, for purpose: String) throws(SystemShortage)
        -> DescriptorReservation
    {
        let openCount = openCount
        let kept = connectionShare + spareCount
        let missing = promised.withLock { promised -> Int? in
            let missing = openCount + promised + kept + count - limit
            if missing > 0 { return missing }
            promised += count
            return nil
        }
        if let missing {
            throw SystemShortage(
                "\(purpose) needs \(count) file descriptors, \(missing) more than are free: "
                    + "RLIMIT_NOFILE (ulimit -n) is \(limit), \(openCount) are open and \(kept) "
                    + "are kept for connections. Raise the limit (ulimit -Hn, LimitNOFILE= of the "
                    + "service), or unregister checkpoints")
        }
        return DescriptorReservation(count)
    }

    /// Whether `descriptor`, which was just opened, is one of the last, which are kept or promised. The kernel
    /// gives the lowest number that is free.
    public static func isKeptForOthers(_ descriptor: CInt) -> Bool {
        Int(descriptor) >= limit - connectionShare - spareCount - promised.withLock(\.self)
    }

    fileprivate static func giveBack(_ count: Int) { promised.withLock { $0 -= count } }

    private static var resource: __rlimit_resource_t {
        __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    }

    private static var current: rlimit {
        var limit = rlimit()
        // SAFETY: the result is written to a variable that outlives the call, which cannot fail for it.
        unsafe getrlimit(resource, &limit)
        return limit
    }
}

/// A promise of descriptors; it ends with its last reference.
public final class DescriptorReservation: Sendable {
    private let count: Mutex<Int>

    fileprivate init(_ count: Int) { self.count = Mutex(count) }

    deinit { Descriptors.giveBack(count.withLock(\.self)) }

    /// Keeps `rest` of the promise: the others are open by now.
    public func reduce(to rest: Int) {
        let opened = count.withLock { count -> Int in
            let opened = max(0, count - rest)
            count -= opened
            return opened
        }
        Descriptors.giveBack(opened)
    }
}
