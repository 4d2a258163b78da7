import CheckpointJSON

extension Timeline {
    /// The timeline in the trace event format that Perfetto and `chrome://tracing` open: a process
    /// for each track, in it a thread for each stage. Times are microseconds, to the nanosecond.
    public func chromeTrace() -> [UInt8] {
        var writer = JSONWriter(capacity: 256 + spans.count * 160)
        writer.beginObject()
        writer.key("displayTimeUnit")
        writer.string("ms")
        writer.key("otherData")
        writer.beginObject()
        writer.key("title")
        writer.string(title)
        writer.endObject()
        writer.key("traceEvents")
        writer.beginArray()
        for (place, track) in tracks.enumerated() {
            writer.metadata(process: place + 1, name: track.title, place: place)
        }
        for thread in chromeThreads {
            writer.metadata(thread: thread)
            for span in thread.spans { writer.event(span, on: thread) }
        }
        writer.endArray()
        writer.endObject()
        return writer.bytes
    }
}

// MARK: - Threads

/// Spans that follow one another: the format has no place for others in one thread.
private struct ChromeThread {
    let process: Int
    /// Its own in the whole trace, and none of the first processes'.
    let number: Int
    let name: String
    let spans: [Timeline.Span]
}

extension Timeline {
    /// A lane is one thread, or as many as its spans overlap.
    private var chromeThreads: [ChromeThread] {
        let processes = Dictionary(
            uniqueKeysWithValues: tracks.enumerated().map { ($0.element, $0.offset + 1) })
        let firstNumber = 1000 + processes.count
        var threads: [ChromeThread] = []
        for lane in lanes {
            for (row, spans) in lane.rows.enumerated() {
                let title = lane.stage.title
                threads.append(
                    ChromeThread(
                        process: processes[lane.track, default: 0],
                        number: firstNumber + threads.count,
                        name: row == 0 ? title : "\(title) (\(row + 1))", spans: spans))
            }
        }
        return threads
    }
}

extension Timeline.Lane {
    /// The spans in rows in which none begins before the one before it has ended.
    var rows: [[Timeline.Span]] {
        var rows: [[Timeline.Span]] = []
        var ends: [Int] = []
        for span in spans {
            let end = span.startNanoseconds + span.nanoseconds
            if let row = ends.firstIndex(where: { $0 <= span.startNanoseconds }) {
                rows[row].append(span)
                ends[row] = end
            } else {
                rows.append([span])
                ends.append(end)
            }
        }
        return rows
    }
}

extension Timeline.Span {
    fileprivate var startNanoseconds: Int { Int((startSeconds * 1e9).rounded()) }
    /// Counted between rounded ends, so that spans that touch still do.
    fileprivate var nanoseconds: Int { Int((endSeconds * 1e9).rounded()) - startNanoseconds }
}

// MARK: - Events

extension JSONWriter {
    fileprivate mutating func metadata(process: Int, name: String, place: Int) {
        metadata("process_name", process: process, thread: nil) { $0.member("name", name) }
        metadata("process_sort_index", process: process, thread: nil) {
            $0.member("sort_index", place)
        }
    }

    fileprivate mutating func metadata(thread: ChromeThread) {
        metadata("thread_name", process: thread.process, thread: thread.number) {
            $0.member("name", thread.name)
        }
        metadata("thread_sort_index", process: thread.process, thread: thread.number) {
            $0.member("sort_index", thread.number)
        }
    }

    private mutating func metadata(
        _ kind: String, process: Int, thread: Int?, argument: (inout JSONWriter) -> Void
    ) {
        beginObject()
        member("ph", "M")
        member("name", kind)
        member("pid", process)
        if let thread { member("tid", thread) }
        key("args")
        beginObject()
        argument(&self)
        endObject()
        endObject()
    }

    fileprivate mutating func event(_ span: Timeline.Span, on thread: ChromeThread) {
        beginObject()
        member("ph", "X")
        member("name", span.name)
        member("cat", span.stage.title)
        member("pid", thread.process)
        member("tid", thread.number)
        key("ts")
        number(Double(span.startNanoseconds) / 1000)
        key("dur")
        number(Double(span.nanoseconds) / 1000)
        key("args")
        beginObject()
        member("bytes", span.byteCount)
        if let rate = span.summary.rateText { member("rate", rate) }
        endObject()
        endObject()
    }

    private mutating func member(_ key: String, _ value: String) {
        self.key(key)
        string(value)
    }

    private mutating func member(_ key: String, _ value: Int) {
        self.key(key)
        integer(value)
    }
}
