import Hummingbird
import HummingbirdTesting
import Synchronization
import Testing

/// The HTTP server of an engine whose reload fails, or hangs.
enum FakeEngine {
    struct Reply: Sendable {
        let status: Int
        let text: String
    }

    /// Runs the test with the URL of a live server. Every reload gets `answer`, or none at all.
    static func with(
        answer: Reply?, _ test: @escaping @Sendable (_ url: String) async throws -> Void
    ) async throws {
        let isOver = Atomic(false)
        let router = Router()
        router.get("/health") { _, _ in HTTPResponse.Status.ok }
        router.post("/collective_rpc") { _, _ -> Response in
            guard let answer else {
                while !isOver.load(ordering: .relaxed) {
                    try await Task.sleep(for: .milliseconds(10))
                }
                return Response(status: .ok)
            }
            return Response(
                status: HTTPResponse.Status(code: answer.status),
                body: ResponseBody(byteBuffer: ByteBuffer(string: answer.text)))
        }
        try await Application(router: router, logger: ControlFixture.quiet).test(.live) { client in
            // The server waits for its requests before it ends.
            defer { isOver.store(true, ordering: .relaxed) }
            let port = try #require(client.port)
            try await test("http://127.0.0.1:\(port)/collective_rpc")
        }
    }
}
