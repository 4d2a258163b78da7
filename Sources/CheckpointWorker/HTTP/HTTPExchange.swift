public import AsyncHTTPClient
import NIOCore
import NIOHTTP1

/// One HTTP call with a deadline for all of its answer; the client's own deadlines are for the head alone.
public enum HTTPExchange {
    public struct Answer: Sendable {
        public let status: Int
        /// The body, or its beginning.
        public let bytes: [UInt8]
        /// Whether the body has no more bytes than were asked for.
        public let isWhole: Bool
    }

    /// Sends `request` and reads up to `byteCountMax` bytes of the answer's body. Throws the client's errors,
    /// `deadlineExceeded` among them, and `CancellationError`.
    public static func perform(
        _ request: HTTPClientRequest, with client: HTTPClient, timeout: Duration,
        byteCountMax: Int
    ) async throws -> Answer {
        try await withThrowingTaskGroup(of: Answer.self) { group in
            group.addTask {
                let response = try await client.execute(request, deadline: .distantFuture)
                var bytes: [UInt8] = []
                for try await chunk in response.body {
                    let room = byteCountMax - bytes.count
                    bytes.append(contentsOf: chunk.readableBytesView.prefix(room))
                    guard chunk.readableBytes <= room else {
                        return Answer(
                            status: Int(response.status.code), bytes: bytes, isWhole: false)
                    }
                }
                return Answer(status: Int(response.status.code), bytes: bytes, isWhole: true)
            }
            group.addTask {
                try await Task.sleep(for: timeout)
                throw HTTPClientError.deadlineExceeded
            }
            defer { group.cancelAll() }
            guard let answer = try await group.next() else { throw CancellationError() }
            return answer
        }
    }
}
