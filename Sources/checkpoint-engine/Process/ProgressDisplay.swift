import Synchronization

/// Tells how far a long step is: as a bar on a terminal, else as plain lines now and then.
///
/// Any thread may report.
final class ProgressDisplay: Sendable {
    private struct State {
        var step = ""
        var start = ContinuousClock.now
        var lastOutput: ContinuousClock.Instant?
        var barIsShown = false
    }

    /// A terminal's bar moves often, a log should not fill up.
    private static let barInterval = Duration.milliseconds(100)
    private static let lineInterval = Duration.seconds(5)
    private static let barWidth = 30

    private let terminal: Terminal
    private let state = Mutex(State())

    init(_ terminal: Terminal = .standardError) {
        self.terminal = terminal
    }

    /// Begins a step; `step` names it in every line, as in `register`.
    func begin(_ step: String, _ sentence: String) {
        state.withLock { state in
            clearBar(&state)
            state.step = step
            state.start = .now
            state.lastOutput = nil
            write(sentence, state)
        }
    }

    /// How many bytes of the step are done.
    func report(_ done: Int, _ total: Int) {
        state.withLock { state in
            let now = ContinuousClock.now
            let interval = terminal.isInteractive ? Self.barInterval : Self.lineInterval
            let last = state.lastOutput ?? (terminal.isInteractive ? nil : state.start)
            if let last, last.duration(to: now) < interval { return }
            state.lastOutput = now
            let seconds = state.start.duration(to: now) / .seconds(1)
            let line = Self.line(done, total, seconds)
            if terminal.isInteractive {
                state.barIsShown = true
                let bar = Self.bar(done, total)
                terminal.writeOver("\(state.step): \(bar) \(line)")
            } else {
                terminal.write("\(state.step): \(line)\n")
            }
        }
    }

    /// A line beside the bar.
    func note(_ sentence: String) {
        state.withLock { state in
            clearBar(&state)
            write(sentence, state)
        }
    }

    /// Leaves the terminal's line clean.
    func end() {
        state.withLock { clearBar(&$0) }
    }

    private func clearBar(_ state: inout State) {
        guard state.barIsShown else { return }
        state.barIsShown = false
        terminal.writeOver("")
    }

    /// One line, also where an engine's answer in it has several.
    private func write(_ sentence: String, _ state: State) {
        terminal.write("\(state.step): \(PrintableText.escaped(sentence))\n")
    }

    private static func bar(_ done: Int, _ total: Int) -> String {
        let filled = total > 0 ? Int(Double(done) / Double(total) * Double(barWidth)) : 0
        let count = min(max(filled, 0), barWidth)
        return "[" + String(repeating: "#", count: count)
            + String(repeating: ".", count: barWidth - count) + "]"
    }

    private static func line(_ done: Int, _ total: Int, _ seconds: Double) -> String {
        let percent = total > 0 ? Int(Double(done) / Double(total) * 100) : 100
        let rate = TextFormat.rate(done, seconds)
        return "\(percent) % of \(TextFormat.bytes(total))" + (rate.isEmpty ? "" : ", \(rate) GB/s")
    }
}
