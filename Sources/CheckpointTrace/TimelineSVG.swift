extension Timeline {
    /// A picture that needs nothing else: bars over time, a lane for each stage of each track, and
    /// how busy each was. It brings its own white ground.
    public func svg() -> [UInt8] {
        var picture = TimelinePicture(self)
        return picture.draw()
    }
}

private struct TimelinePicture {
    private static let ink = "#1F2328"
    private static let faintInk = "#59636E"
    private static let line = "#D1D9E0"
    private static let ground = "#F6F8FA"
    private static let fonts = "-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"

    private let timeline: Timeline
    private let layout: SVGLayout
    private var writer = SVGWriter()

    init(_ timeline: Timeline) {
        self.timeline = timeline
        layout = SVGLayout(timeline)
    }

    mutating func draw() -> [UInt8] {
        let size = (NumberText.coordinate(SVGLayout.width), NumberText.coordinate(layout.height))
        writer.begin(
            "svg",
            [
                "xmlns": "http://www.w3.org/2000/svg", "width": size.0, "height": size.1,
                "viewBox": "0 0 \(size.0) \(size.1)", "font-family": Self.fonts, "font-size": "12",
                "fill": Self.ink, "role": "img",
            ])
        writer.title(timeline.title)
        writer.rectangle(
            SVGFrame(x: 0.5, y: 0.5, width: SVGLayout.width - 1, height: layout.height - 1),
            ["rx": "8", "fill": "#FFFFFF", "stroke": Self.line])
        drawHeader()
        drawLegend()
        for group in layout.groups { drawGround(group) }
        drawAxis()
        for group in layout.groups { drawLanes(group) }
        drawNote()
        writer.end()
        return writer.bytes
    }
}

// MARK: - Frame

extension TimelinePicture {
    private mutating func drawHeader() {
        let title = SVGText.fitted(timeline.title, width: 960, fontSize: 20)
        writer.text(title, SVGLayout.margin, 42, ["font-size": "20", "font-weight": "600"])
        let total = "total " + NumberText.duration(timeline.totalSeconds)
        writer.text(
            total, SVGLayout.width - SVGLayout.margin, 42,
            ["font-size": "16", "font-weight": "600", "text-anchor": "end"])
    }

    private mutating func drawLegend() {
        for (stage, x, y) in layout.legend {
            writer.rectangle(
                SVGFrame(x: x, y: y - 11, width: 13, height: 13),
                ["rx": "3", "fill": stage.color])
            writer.text(
                stage.title, x + 20, y, ["font-size": "13", "font-weight": "600"],
                then: timeline.summary(of: stage).text,
                ["dx": "8", "font-size": "12", "font-weight": "400", "fill": Self.faintInk])
        }
    }

    private mutating func drawAxis() {
        for tick in AxisTicks(upTo: layout.totalSeconds).nanoseconds {
            let x = layout.x(Double(tick) / 1e9)
            let place = NumberText.coordinate(x)
            writer.element(
                "line",
                [
                    "x1": place, "x2": place, "y1": NumberText.coordinate(layout.plotTop),
                    "y2": NumberText.coordinate(layout.plotBottom + 6), "stroke": Self.line,
                ])
            writer.text(
                AxisTicks.label(nanoseconds: tick), x, layout.plotBottom + 21,
                ["text-anchor": "middle", "fill": Self.faintInk])
        }
        writer.text("ms", SVGLayout.plotRight + 20, layout.plotBottom + 21, ["fill": Self.faintInk])
    }

    private mutating func drawNote() {
        writer.text(
            "Time: at least one bar is running. Rate: bytes over that time. "
                + "At the top all tracks together, at the right each lane.",
            SVGLayout.margin, layout.height - 16, ["font-size": "11", "fill": Self.faintInk])
    }
}

// MARK: - Lanes

extension TimelinePicture {
    private mutating func drawGround(_ group: SVGLayout.Group) {
        writer.rectangle(
            SVGFrame(x: 12, y: group.y, width: SVGLayout.width - 24, height: group.height),
            ["rx": "6", "fill": Self.ground])
    }

    private mutating func drawLanes(_ group: SVGLayout.Group) {
        let name = SVGText.fitted(group.track.title, width: 66, fontSize: 13)
        writer.text(
            name, SVGLayout.margin, group.y + group.height / 2 + 4.5,
            ["font-size": "13", "font-weight": "600"])
        for row in group.rows {
            let baseline = row.y + SVGLayout.laneHeight / 2 + 4
            writer.text(
                row.lane.stage.title, SVGLayout.plotLeft - 10, baseline,
                ["text-anchor": "end", "fill": Self.faintInk])
            writer.text(
                row.lane.summary.text, SVGLayout.width - SVGLayout.margin, baseline,
                ["text-anchor": "end", "fill": Self.faintInk])
            writer.begin("g", ["fill": row.lane.stage.color])
            for span in row.lane.spans { drawBar(span, row) }
            writer.end()
            drawLabels(row)
        }
    }

    private mutating func drawBar(_ span: Timeline.Span, _ row: SVGLayout.Row) {
        let frame = frame(span, row)
        writer.begin("rect", ["rx": frame.width < 5 ? "0" : "2"], frame: frame)
        writer.title("\(span.name): \(span.summary.text)")
        writer.end()
    }

    private mutating func drawLabels(_ row: SVGLayout.Row) {
        writer.begin(
            "g",
            [
                "fill": row.lane.stage.textColor, "font-size": "10", "text-anchor": "middle",
            ])
        for span in row.lane.spans {
            let frame = frame(span, row)
            let label = SVGText.barLabel(span.name)
            guard SVGText.width(label, fontSize: 10) + 3 <= frame.width else { continue }
            writer.text(label, frame.x + frame.width / 2, frame.y + frame.height / 2 + 3.5)
        }
        writer.end()
    }

    /// A bar ends a little early, so that bars which touch can be told apart, and is never
    /// narrower than a pixel.
    private func frame(_ span: Timeline.Span, _ row: SVGLayout.Row) -> SVGFrame {
        let x = layout.x(span.startSeconds)
        let width = layout.x(span.endSeconds) - x
        return SVGFrame(
            x: min(x, SVGLayout.plotRight - 1),
            y: row.y + (SVGLayout.laneHeight - SVGLayout.barHeight) / 2,
            width: max(1, width > 4 ? width - 1 : width), height: SVGLayout.barHeight)
    }
}
