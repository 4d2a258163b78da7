/// Where the parts of a picture stand, in pixels.
struct SVGLayout {
    struct Row {
        let lane: Timeline.Lane
        let y: Double
    }

    /// The lanes of one track.
    struct Group {
        let track: Timeline.Track
        let y: Double
        let rows: [Row]

        var height: Double { Double(rows.count) * laneHeight + 2 * groupPadding }
    }

    static let width = 1200.0
    static let margin = 24.0
    static let plotLeft = 168.0
    static let plotRight = 1016.0
    static let laneHeight = 24.0
    static let barHeight = 18.0
    static let legendColumns = 4
    private static let groupPadding = 4.0
    private static let groupGap = 10.0
    private static let legendRowHeight = 24.0
    private static let axisHeight = 64.0

    let groups: [Group]
    let legend: [(stage: Timeline.Stage, x: Double, y: Double)]
    let plotTop: Double
    let plotBottom: Double
    let totalSeconds: Double

    var height: Double { plotBottom + Self.axisHeight }

    init(_ timeline: Timeline) {
        totalSeconds = timeline.totalSeconds
        legend = Self.legend(timeline.stages)
        plotTop = (legend.last?.y ?? 52) + 24
        groups = Self.groups(timeline.lanes, top: plotTop)
        plotBottom = groups.last.map { $0.y + $0.height } ?? plotTop + Self.laneHeight
    }

    /// The place of a time on the axis.
    func x(_ seconds: Double) -> Double {
        guard totalSeconds > 0 else { return Self.plotLeft }
        return Self.plotLeft + seconds / totalSeconds * (Self.plotRight - Self.plotLeft)
    }

    private static func legend(
        _ stages: [Timeline.Stage]
    ) -> [(stage: Timeline.Stage, x: Double, y: Double)] {
        let columnWidth = (width - 2 * margin) / Double(legendColumns)
        return stages.enumerated().map { place, stage in
            (
                stage, margin + Double(place % legendColumns) * columnWidth,
                76 + Double(place / legendColumns) * legendRowHeight
            )
        }
    }

    private static func groups(_ lanes: [Timeline.Lane], top: Double) -> [Group] {
        var groups: [Group] = []
        var y = top
        var rest = lanes[...]
        while let track = rest.first?.track {
            let own = rest.prefix { $0.track == track }
            rest = rest.dropFirst(own.count)
            let rows = own.enumerated().map { place, lane in
                Row(lane: lane, y: y + groupPadding + Double(place) * laneHeight)
            }
            let group = Group(track: track, y: y, rows: rows)
            groups.append(group)
            y += group.height + groupGap
        }
        return groups
    }
}
