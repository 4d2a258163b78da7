import Testing

@testable import CheckpointDevice

/// The texts of a machine with 64 kB of memory left.
private func machine(_ more: [String: String]) -> MemoryBudget {
    let texts = more.merging(["/proc/meminfo": "MemTotal: 100 kB\nMemAvailable:   64 kB\n"]) {
        given, _ in given
    }
    return MemoryBudget { texts[$0] }
}

private let mountsTwo =
    "24 1 0:5 / /proc rw - proc proc rw\n31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup rw\n"

private func group(_ path: String, _ max: String, _ current: String, stat: String = "")
    -> [String: String]
{
    [
        "\(path)/memory.max": max + "\n", "\(path)/memory.current": current + "\n",
        "\(path)/memory.stat": stat,
    ]
}

private func merged(_ parts: [String: String]...) -> [String: String] {
    parts.reduce(into: [:]) { all, part in all.merge(part) { $1 } }
}

struct MemoryBudgetTests {
    @Test func theMachineCountsWhereNoGroupHasALimit() {
        #expect(machine([:]).availableByteCount == 65536)
        #expect(machine([:]).source == .machine)
        #expect(machine(["/proc/meminfo": "garbage"]).availableByteCount == nil)
        #expect(
            machine(["/proc/meminfo": "MemAvailable: 9223372036854775807 kB\n"])
                .availableByteCount == nil)
        #expect((MemoryBudget.current().availableByteCount ?? 0) > 0)
    }

    /// The limit of a service, of a pod or of a slice may be the smallest one, at any depth.
    @Test(arguments: [
        ("max", "max", 65536), ("9000", "max", 8900), ("max", "5000", 3000),
        ("9000", "5000", 3000), ("2100", "5000", 2000), ("200000", "300000", 65536),
    ])
    func theSmallestHeadroomUpToTheRoot(own: String, above: String, free: Int) {
        let budget = machine(
            merged(
                ["/proc/self/cgroup": "0::/pods/burst/one\n", "/proc/self/mountinfo": mountsTwo],
                group("/sys/fs/cgroup/pods/burst/one", own, "100"),
                group("/sys/fs/cgroup/pods/burst", "max", "200"),
                group("/sys/fs/cgroup/pods", above, "2000")))
        #expect(budget.availableByteCount == free)
    }

    @Test func theGroupIsNamedWithItsLimit() {
        let budget = machine(
            merged(
                ["/proc/self/cgroup": "0::/pods/one\n", "/proc/self/mountinfo": mountsTwo],
                group("/sys/fs/cgroup/pods", "5000", "1000")))
        #expect(budget.source == .group(path: "/sys/fs/cgroup/pods", limitByteCount: 5000))
        #expect("\(budget.source)".contains("5000 bytes of /sys/fs/cgroup/pods"))
    }

    @Test func aGroupThatIsHeldUpBeforeItsLimit() {
        let budget = machine(
            merged(
                ["/proc/self/cgroup": "0::/a\n", "/proc/self/mountinfo": mountsTwo],
                group("/sys/fs/cgroup/a", "9000", "500"),
                ["/sys/fs/cgroup/a/memory.high": "4000\n"]))
        #expect(budget.availableByteCount == 3500)
    }

    /// Caches of files that were read are dropped; files on a tmpfs are not, and are in other lists.
    @Test(arguments: [
        ("1000", "950", 850), ("1000", "700", 1000), ("1000", "2000", 0),
    ])
    func theCacheOfReadFilesCountsAsFree(limit: String, used: String, free: Int) {
        let stat = "anon 10\nfile 900\nactive_file 300\ninactive_file 500\nshmem 100\n"
        let budget = machine(
            merged(
                ["/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": mountsTwo],
                group("/sys/fs/cgroup", limit, used, stat: stat)))
        #expect(budget.availableByteCount == free)
    }

    @Test func oddStatisticsCountForNothing() {
        let budget = machine(
            merged(
                ["/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": mountsTwo],
                group(
                    "/sys/fs/cgroup", "1000", "900",
                    stat: "active_file -5\ninactive_file x\nactive_file\n")))
        #expect(budget.availableByteCount == 100)
    }
}

struct ControlGroupsTests {
    private static let membershipOne = "9:name=systemd:/x\n4:cpu,memory:/docker/abc/job\n0::/\n"

    private static func groupOne(
        _ path: String, _ limit: String, _ usage: String, _ stat: String = ""
    )
        -> [String: String]
    {
        [
            "\(path)/memory.limit_in_bytes": limit, "\(path)/memory.usage_in_bytes": usage,
            "\(path)/memory.stat": stat,
        ]
    }

    private static func mount(_ root: String, _ point: String, _ end: String) -> String {
        "35 31 0:32 \(root) \(point) rw,relatime - \(end)\n"
    }

    @Test func versionOneBesideAnEmptyVersionTwo() {
        let budget = machine(
            merged(
                [
                    "/proc/self/cgroup": Self.membershipOne,
                    "/proc/self/mountinfo": Self.mount(
                        "/", "/sys/fs/cgroup/cpu", "cgroup cgroup rw,cpu,cpuacct")
                        + Self.mount(
                            "/", "/sys/fs/cgroup/memory", "cgroup cgroup rw,cpu,memory")
                        + Self.mount("/", "/sys/fs/cgroup/unified", "cgroup2 cgroup2 rw"),
                ],
                Self.groupOne(
                    "/sys/fs/cgroup/memory/docker/abc/job", "9223372036854771712", "100",
                    "active_file 1\ntotal_active_file 40\ntotal_inactive_file 60\n"),
                Self.groupOne(
                    "/sys/fs/cgroup/memory/docker/abc", "8000", "1000",
                    "active_file 1\ntotal_active_file 40\ntotal_inactive_file 60\n")))
        #expect(budget.availableByteCount == 7100)
    }

    /// A container sees its own group at the mount's root, and the full path in its membership.
    @Test func aMountThatBeginsBelowTheRoot() {
        let budget = machine(
            merged(
                [
                    "/proc/self/cgroup": Self.membershipOne,
                    "/proc/self/mountinfo": Self.mount(
                        "/docker/abc", "/sys/fs/cgroup/my\\040memory", "cgroup cgroup rw,memory"),
                ],
                Self.groupOne("/sys/fs/cgroup/my memory/job", "6000", "100"),
                Self.groupOne("/sys/fs/cgroup/my memory", "8000", "3000")))
        #expect(budget.availableByteCount == 5000)
    }

    /// The groups above a container's have no files in it; version 1 tells their limit all the same.
    @Test func aLimitAboveWhatIsSeen() {
        let budget = machine(
            merged(
                [
                    "/proc/self/cgroup": "4:memory:/\n",
                    "/proc/self/mountinfo": Self.mount(
                        "/", "/sys/fs/cgroup/memory", "cgroup cgroup rw,memory"),
                ],
                Self.groupOne(
                    "/sys/fs/cgroup/memory", "9223372036854771712", "100",
                    "hierarchical_memory_limit 4000\n")))
        #expect(budget.availableByteCount == 3900)
    }

    /// Namespaces: the group may lie outside of the namespace's root, and the mount above it.
    @Test(arguments: [
        ("/../other", "/", 900), ("/", "/../..", 900), ("/../other", "/..", 400),
        ("/x", "/foreign", 900), ("/..", "/..", 900),
    ])
    func pathsThatLeadUp(group path: String, root: String, free: Int) {
        let budget = machine(
            merged(
                [
                    "/proc/self/cgroup": "0::\(path)\n",
                    "/proc/self/mountinfo": Self.mount(root, "/sys/fs/cgroup", "cgroup2 none rw"),
                ],
                group("/sys/fs/cgroup", "1000", "100"),
                group("/sys/fs/cgroup/other", "500", "100")))
        #expect(budget.availableByteCount == free)
    }

    @Test func processesAndThreads() {
        let texts = [
            "/proc/self/cgroup": "3:pids:/job/step\n",
            "/proc/self/mountinfo": Self.mount("/", "/cg/pids", "cgroup cgroup rw,pids"),
            "/cg/pids/job/step/pids.max": "max\n", "/cg/pids/job/step/pids.current": "30\n",
            "/cg/pids/job/pids.max": "100\n", "/cg/pids/job/pids.current": "40\n",
        ]
        let budget = TaskBudget { texts[$0] }
        #expect(budget.availableCount == 60 && budget.path == "/cg/pids/job")
        #expect(TaskBudget { _ in nil }.availableCount == nil)
    }

    @Test func nothingThatIsGarbled() {
        for text in ["", "x", "0::", "4:memory", ":::\n"] {
            let budget = machine(["/proc/self/cgroup": text, "/proc/self/mountinfo": text])
            #expect(budget.source == .machine)
        }
    }
}
