import Testing

@testable import CheckpointTransfer

struct AgentMessageTests {
    @Test func linesAreWhatTheySay() throws {
        let lines: [(String, AgentMessage)] = [
            (
                #"{"event":"ready","session":"h:1","protocol":"rdma","devices":["a"],"version":"1"}"#,
                .ready(
                    .init(session: "h:1", protocolName: "rdma", devices: ["a"], version: "1"))
            ),
            (#"{"event":"failed","error":"why"}"#, .failed("why")),
            (#"{"id":1,"address":4096}"#, .answer(id: 1, .init(address: 4096))),
            (#"{"id":2}"#, .answer(id: 2, .init())),
            (#"{"id":3,"seconds":0.5}"#, .answer(id: 3, .init(seconds: 0.5))),
            (#"{"seconds":3,"id":3}"#, .answer(id: 3, .init(seconds: 3))),
            (#"{"id":4,"error":"no"}"#, .refusal(id: 4, "no")),
            (#"{"id":null,"error":"no"}"#, .refusal(id: nil, "no")),
        ]
        for (line, message) in lines {
            #expect(try AgentMessage.parse(Array(line.utf8)) == message)
        }
    }

    @Test(arguments: [
        "", "{}", "[]", "1", #"{"id":1"#, #"{"id":1}{"#, #"{"id":"1"}"#, #"{"id":1.5}"#,
        #"{"id":null}"#, #"{"id":1,"id":1}"#, #"{"id":1,"more":2}"#, #"{"id":1,"address":0}"#,
        #"{"id":1,"address":-1}"#, #"{"id":1,"address":99999999999999999999}"#,
        #"{"id":1,"seconds":-1}"#, #"{"id":1,"seconds":1e300}"#, #"{"id":1,"seconds":"1"}"#,
        #"{"id":1,"error":2}"#, #"{"event":"other"}"#, #"{"event":"failed"}"#,
        #"{"event":"ready","session":"h","protocol":"tcp","devices":[],"version":"1"}"#,
        #"{"event":"ready","session":"h:1","protocol":"tcp","devices":[1],"version":"1"}"#,
        #"{"id":1,"address":[[[]]]}"#,
    ])
    func whatIsNoLineIsRefused(_ line: String) {
        #expect(throws: (any Error).self) { try AgentMessage.parse(Array(line.utf8)) }
    }

    @Test func aRequestIsOneLine() throws {
        let mapping = TransferMapping(
            path: "/x\n\"", inode: 5, byteCount: 6, isWritable: false)
        #expect(
            String(decoding: try AgentRequest.map(mapping).line(id: 9), as: UTF8.self)
                == #"{"id":9,"op":"map","path":"/x\n\"","inode":5,"bytes":6,"writable":false}"#
                + "\n")
        let read = try AgentRequest.read(
            from: "h:1",
            [
                TransferRange(local: 1, remote: 2, byteCount: 3),
                TransferRange(local: 4, remote: 5, byteCount: 6),
            ])
        #expect(
            String(decoding: read.line(id: 1), as: UTF8.self)
                == #"{"id":1,"op":"read","session":"h:1","ranges":[[1,2,3],[4,5,6]]}"# + "\n")
        #expect(
            String(decoding: AgentRequest.ping.line(id: 2), as: UTF8.self)
                == #"{"id":2,"op":"ping"}"# + "\n")
    }

    @Test(arguments: 1...9)
    func linesAreCutWhereverThePipeCuts(_ pieceByteCount: Int) {
        let text = Array("one\n\ntwo\nthree".utf8)
        var splitter = LineSplitter(byteCountMax: 5)
        var lines: [[UInt8]] = []
        var rest = text[...]
        while !rest.isEmpty {
            lines += splitter.lines(in: Array(rest.prefix(pieceByteCount)))
            rest = rest.dropFirst(pieceByteCount)
        }
        lines.append(splitter.takeRest())
        #expect(lines.map { String(decoding: $0, as: UTF8.self) } == ["one", "", "two", "three"])
    }

    @Test func aLongLineComesInPieces() {
        var splitter = LineSplitter(byteCountMax: 4)
        let lines = splitter.lines(in: Array("abcdefghij\nk".utf8))
        #expect(lines.map { String(decoding: $0, as: UTF8.self) } == ["abcd", "efgh", "ij"])
        #expect(splitter.takeRest() == Array("k".utf8))
    }

    @Test func aPromiseIsKeptOnce() async throws {
        let promise = Promise<Int>()
        let waiting = Task { try? await promise.value(within: .seconds(20)) }
        let late = await Task { try? await promise.value(within: .milliseconds(20)) }.value
        #expect(late == nil)
        #expect(promise.fulfil(1))
        #expect(!promise.fulfil(2))
        #expect(await waiting.value == 1)
        #expect(try await promise.value(within: .zero) == 1)
    }

    @Test func manyWaitsEndOnceEach() async {
        for _ in 0..<200 {
            let promise = Promise<Int>()
            let tasks = (0..<4).map { index in
                Task { try? await promise.value(within: .microseconds(100 * index)) }
            }
            tasks[3].cancel()
            promise.fulfil(5)
            for task in tasks { #expect([nil, 5].contains(await task.value)) }
        }
    }
}
