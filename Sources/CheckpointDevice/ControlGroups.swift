/// The control groups that a process lies in.
///
/// Sources: the kernel's `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`, cgroups(7).
struct ControlGroups {
    /// The two versions have other names for the same things.
    enum Version: Hashable, Sendable, CaseIterable {
        case one
        case two
    }

    struct Directory: Hashable, Sendable {
        let path: String
        let version: Version
    }

    /// The text of `/proc/self/cgroup`.
    private let membership: String
    private let mounts: MountTable

    /// `read` gives the text of a file; `nil` where there is none.
    init(_ read: (_ path: String) -> String?) {
        membership = read("/proc/self/cgroup") ?? ""
        mounts = MountTable(read("/proc/self/mountinfo") ?? "")
    }

    /// The directories of the process's group and of all that it lies in, its own one first, as far as they
    /// are to be seen. Limits of each of them hold.
    func directories(of controller: String) -> [Directory] {
        Version.allCases.flatMap { version -> [Directory] in
            guard let group = path(version, controller) else { return [] }
            let places = mounts.mounts.filter { Self.isMount($0, version, controller) }
            return Self.directories(of: group, places).map { Directory(path: $0, version: version) }
        }
    }

    /// The first integer of a small file; `nil` for `max` too.
    static func integer(_ text: String) -> Int? {
        text.split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) }
    }

    /// Lines of `ID:CONTROLLERS:PATH`, for version 2 `0::PATH`.
    private func path(_ version: Version, _ controller: String) -> [Substring]? {
        for line in membership.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let isWanted =
                switch version {
                case .one: fields[1].split(separator: ",").contains { $0 == controller }
                case .two: fields[0] == "0" && fields[1].isEmpty
                }
            if isWanted { return fields[2].split(separator: "/") }
        }
        return nil
    }

    private static func isMount(
        _ mount: MountTable.Mount, _ version: Version, _ controller: String
    ) -> Bool {
        switch version {
        case .one: mount.type == "cgroup" && mount.options.contains(controller)
        case .two: mount.type == "cgroup2"
        }
    }

    private static func directories(of group: [Substring], _ mounts: [MountTable.Mount]) -> [String]
    {
        for mount in mounts {
            let root = mount.root.split(separator: "/")
            guard group.starts(with: root) else { continue }
            let below = group.dropFirst(root.count)
            // A path that leads out of the mount again: what is above it is not to be seen here.
            guard !below.contains("..") else { continue }
            return (0...below.count).reversed().map { count in
                ([mount.point] + below.prefix(count).map(String.init)).joined(separator: "/")
            }
        }
        // The mount shows a group above the process's namespace, or none of which it is known where it lies.
        let above = mounts.first { $0.root.split(separator: "/").allSatisfy { $0 == ".." } }
        return (above ?? mounts.first).map { [$0.point] } ?? []
    }
}
