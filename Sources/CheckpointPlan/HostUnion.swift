public import CheckpointModel

/// What several hosts have together, in the order of delivery, as one of them sees it. Pure; the order and
/// the owners are the same on all hosts.
public struct HostUnion: Hashable, Sendable {
    /// Who has the bytes of a tensor.
    public struct Place: Hashable, Sendable {
        /// The host that delivers it to all; `nil` when every host has it.
        public let owner: Int?
        /// Whether this host delivers it: then shard and range of the tensor are this host's.
        public let isLocal: Bool
    }

    /// Two hosts have a tensor of one name and another form, or one has two tensors of one name.
    public struct Conflict: Error, Hashable {
        public let name: String
        public let hosts: [Int]
    }

    public let tensors: [TensorEntry]
    /// One for each tensor.
    public let places: [Place]

    /// Bytes that buckets of one host take in the order before those of the next one.
    private static let turnByteCount = 256 << 20

    /// What one host alone has, in its own order.
    public init(catalog: Catalog) {
        tensors = catalog.tensors
        places = [Place](
            repeating: Place(owner: nil, isLocal: true), count: catalog.tensors.count)
    }

    /// The union of `catalogs`, by host. Hosts take turns, so that all of them fetch at the same time; what
    /// every host has comes first.
    public init(catalogs: [[TensorEntry]], host: Int) throws(Conflict) {
        var holders: [ExactString: [Int]] = [:]
        var entries: [ExactString: TensorEntry] = [:]
        for (rank, catalog) in catalogs.enumerated() {
            for tensor in catalog {
                let name = ExactString(tensor.name)
                let known = entries[name] ?? tensor
                guard known.dtype == tensor.dtype, known.shape == tensor.shape,
                    holders[name]?.last != rank
                else {
                    throw Conflict(
                        name: tensor.name, hosts: (holders[name] ?? []) + [rank])
                }
                holders[name, default: []].append(rank)
                if entries[name] == nil || rank == host { entries[name] = tensor }
            }
        }
        let known = Array(entries.keys)
        let names = ModuleOrder.sorted(known.map(\.text)).map { known[$0] }
        let owners = names.map { name -> Int? in
            let holding = holders[name] ?? []
            return holding.count == catalogs.count ? nil : holding.first
        }
        var tensors: [TensorEntry] = []
        var places: [Place] = []
        for index in Self.inTurns(names, owners, hostCount: catalogs.count, entries) {
            guard let tensor = entries[names[index]] else { continue }
            tensors.append(tensor)
            places.append(
                Place(owner: owners[index], isLocal: owners[index] ?? host == host))
        }
        self.tensors = tensors
        self.places = places
    }

    private static func inTurns(
        _ names: [ExactString], _ owners: [Int?], hostCount: Int,
        _ entries: [ExactString: TensorEntry]
    ) -> [Int] {
        var queues = [[Int]](repeating: [], count: hostCount)
        var order: [Int] = []
        for (index, owner) in owners.enumerated() {
            if let owner { queues[owner].append(index) } else { order.append(index) }
        }
        var next = [Int](repeating: 0, count: hostCount)
        while zip(next, queues).contains(where: { $0 < $1.count }) {
            for host in 0..<hostCount {
                var byteCount = 0
                while next[host] < queues[host].count, byteCount < turnByteCount {
                    let index = queues[host][next[host]]
                    byteCount += entries[names[index]]?.range.byteCount ?? 0
                    order.append(index)
                    next[host] += 1
                }
            }
        }
        return order
    }
}
