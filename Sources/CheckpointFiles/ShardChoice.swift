import CheckpointModel

/// Which files of a directory without an index are the checkpoint. Decided by their names, as those are written by
/// the libraries that save checkpoints: what is not told by them is refused, since a file too few leaves old weights
/// in the engine, and one too many brings others. Pure.
struct ShardChoice {
    /// Why none can be chosen, with the remedy.
    struct Refusal: Error {
        let description: String
    }

    static let suffix = ".safetensors"
    /// What transformers and diffusers load where several are there.
    private static let mainStems = ["model", "diffusion_pytorch_model"]
    /// What lies beside a model and is none: adapters, states of a training, the same weights in the form of their
    /// makers.
    private static let sideStems = ["adapter_model", "optimizer", "training_args", "consolidated"]
    private static let remedy =
        "name the files, or an index (*.safetensors.index.json) that lists them"
    /// Names that a message has room for.
    private static let listedCountMax = 8

    /// The names of the files, sorted.
    let names: [String]

    /// Chooses among the names of a directory; those that begin with a dot and those without ``suffix`` do not count.
    init(among directory: [String]) throws(Refusal) {
        let names = directory.filter {
            $0.endsExactly(with: Self.suffix) && !$0.startsExactly(with: ".")
        }
        let groups = Dictionary(grouping: names.map(ShardName.init)) { $0.group }
        guard let group = try Self.group(among: Array(groups.keys)), let files = groups[group]
        else {
            throw Refusal(description: Self.none(directory))
        }
        try Self.checkComplete(group, files)
        self.names = files.map(\.text).sorted { ExactString($0) < ExactString($1) }
    }

    private static func group(among groups: [ShardName.Group]) throws(Refusal)
        -> ShardName.Group?
    {
        if groups.count <= 1 { return groups.first }
        let main = groups.filter { mainStems.contains($0.stem) }
        let others = groups.filter { !mainStems.contains($0.stem) && !isBeside($0, main) }
        if main.count == 1, others.isEmpty { return main[0] }
        if main.isEmpty, others.count == 1 { return others[0] }
        let list = groups.map(\.description).sorted()
        throw Refusal(
            description: "the directory has files of more than one checkpoint, or files whose "
                + "names do not tell that they are one: "
                + list.prefix(listedCountMax).joined(separator: ", ")
                + (list.count > listedCountMax ? " and \(list.count - listedCountMax) others" : "")
                + "; \(remedy)")
    }

    /// Whether it is known to be no part of a model: by its own name, or as a variant (`model.fp16`) of one of `main`.
    private static func isBeside(_ group: ShardName.Group, _ main: [ShardName.Group]) -> Bool {
        sideStems.contains { group.stem == $0 || group.stem.startsExactly(with: "\($0).") }
            || main.contains { group.stem.startsExactly(with: "\($0.stem).") }
    }

    private static func checkComplete(_ group: ShardName.Group, _ files: [ShardName])
        throws(Refusal)
    {
        guard let count = group.count else { return }
        let numbers = Set(files.map(\.number))
        guard numbers.count == files.count else {
            throw Refusal(
                description: "the directory has a part of \(group) twice; \(remedy)")
        }
        guard let stray = numbers.first(where: { !(0...count).contains($0) }) else {
            // Some begin with 0, and number one more than they count.
            let missing = (1...max(1, count)).lazy.filter { !numbers.contains($0) }
            let listed = Array(missing.prefix(listedCountMax))
            if listed.isEmpty { return }
            let rest = count - numbers.subtracting([0]).count - listed.count
            throw Refusal(
                description: "of the \(count) files \(group) these numbers are missing: "
                    + listed.map(String.init).joined(separator: ", ")
                    + (rest > 0 ? " and \(rest) others" : "")
                    + "; copy all files of the checkpoint, or \(remedy)")
        }
        throw Refusal(
            description: "the directory has number \(stray) of the \(count) files \(group); "
                + remedy)
    }

    /// What may be meant where there is no file of safetensors.
    private static func none(_ directory: [String]) -> String {
        let none = "the directory has no file that ends with \(suffix)"
        let pickles = [".bin", ".pt", ".pth", ".ckpt"]
        if directory.contains(where: { name in pickles.contains { name.endsExactly(with: $0) } }) {
            return none + ", but files of PyTorch; convert them to safetensors"
        }
        if directory.contains(where: { $0.endsExactly(with: ".gguf") }) {
            return none + ", but a GGUF file, which cannot be taken"
        }
        return none
    }
}

/// The name of a file of safetensors, as savers make them: `STEM.safetensors` or `STEM-00001-of-00003.safetensors`.
struct ShardName {
    /// What belongs together by its name.
    struct Group: Hashable, CustomStringConvertible {
        /// With its variant: `model`, `model.fp16`.
        let stem: String
        /// How many files it says that there are; `nil` for one that is alone.
        let count: Int?

        var description: String {
            stem + (count.map { "-…-of-\($0)" } ?? "") + ShardChoice.suffix
        }

        static func == (left: Group, right: Group) -> Bool {
            ExactString(left.stem) == ExactString(right.stem) && left.count == right.count
        }
    }

    let text: String
    let group: Group
    /// Its number in a group of several, which differ in how many zeros they write.
    let number: Int

    private static let digitCountMax = 9

    /// Takes a name that ends with ``ShardChoice/suffix``.
    init(_ text: String) {
        self.text = text
        let name = Array(text.utf8.dropLast(ShardChoice.suffix.utf8.count))
        guard let parts = Self.parts(of: name) else {
            group = Group(stem: String(decoding: name, as: UTF8.self), count: nil)
            number = 0
            return
        }
        group = Group(stem: parts.stem, count: parts.count)
        number = parts.number
    }

    /// Reads `STEM-NUMBER-of-COUNT` and `STEM-NUMBER-of-COUNT.VARIANT`.
    private static func parts(of name: [UInt8]) -> (stem: String, number: Int, count: Int)? {
        let word = Array("-of-".utf8)
        guard
            let start = name.indices.last(where: { name[$0...].starts(with: word) })
        else { return nil }
        let rest = name[(start + word.count)...]
        let digits = rest.prefix(while: isDigit)
        let variant = rest.dropFirst(digits.count)
        guard let count = integer(digits), variant.isEmpty || variant.first == UInt8(ascii: ".")
        else { return nil }
        let before = name[..<start]
        guard let dash = before.lastIndex(of: UInt8(ascii: "-")),
            let number = integer(before[(dash + 1)...])
        else { return nil }
        return (String(decoding: before[..<dash] + variant, as: UTF8.self), number, count)
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    private static func integer(_ digits: ArraySlice<UInt8>) -> Int? {
        guard (1...digitCountMax).contains(digits.count), digits.allSatisfy(isDigit) else {
            return nil
        }
        return digits.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
    }
}
