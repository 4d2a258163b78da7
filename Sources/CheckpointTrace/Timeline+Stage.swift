extension Timeline {
    /// What a span does, in the order in which pictures list it.
    public enum Stage: Hashable, Sendable, Comparable, CaseIterable {
        /// The engines' requests are held.
        case pause
        /// The engines start, their workers say hello.
        case handshake
        /// The catalog is exchanged and mapped.
        case catalog
        /// Bytes go from host memory to the device.
        case stage
        /// Devices exchange what each of them staged.
        case gather
        /// The engine loads a bucket into its parameters.
        case reload
        /// Workers let go of shared memory.
        case release
        /// Workers finish the load.
        case commit
        /// Everything is delivered once more, to models that draft.
        case draft
        /// The engines go on.
        case resume

        public var title: String {
            switch self {
            case .pause: "pause"
            case .handshake: "handshake"
            case .catalog: "catalog"
            case .stage: "H2D"
            case .gather: "gather"
            case .reload: "reload"
            case .release: "release"
            case .commit: "commit"
            case .draft: "draft"
            case .resume: "resume"
            }
        }

        /// As `#RRGGBB`. The colours can be told apart without seeing red or green.
        public var color: String {
            switch self {
            case .pause: "#5B4B8A"
            case .handshake: "#CC79A7"
            case .catalog: "#56B4E9"
            case .stage: "#0072B2"
            case .gather: "#E69F00"
            case .reload: "#00805E"
            case .release: "#99A1AB"
            case .commit: "#C2500A"
            case .draft: "#F0E442"
            case .resume: "#5B4B8A"
            }
        }

        /// Of text on ``color``, as `#RRGGBB`.
        var textColor: String {
            switch self {
            case .pause, .resume, .stage, .reload, .commit: "#FFFFFF"
            case .handshake, .catalog, .gather, .release, .draft: "#1F2328"
            }
        }
    }

    /// Where a span runs; the control track comes first, then devices by their index.
    public enum Track: Hashable, Sendable, Comparable {
        /// The whole update.
        case control
        /// A device; its name alone is shown.
        case device(index: Int, name: String)

        /// `GPU 0` and so on.
        public static func gpu(_ index: Int) -> Track {
            .device(index: index, name: "GPU \(index)")
        }

        public var title: String {
            switch self {
            case .control: "control"
            case .device(_, let name): name
            }
        }
    }
}
