import Glibc
import Synchronization

/// A small HTTP server on a unix socket, for tests of what engines answer. One request a connection.
public final class ScriptedHTTPServer: Sendable {
    public struct Request: Hashable, Sendable {
        public let method: String
        /// The path with its query.
        public let target: String
        /// Names in lower case.
        public let headers: [String: String]
        public let body: [UInt8]
    }

    public enum Reply: Hashable, Sendable {
        case answer(status: Int, body: String)
        /// The connection is closed without an answer.
        case close
        /// No answer until the server stops.
        case hang
        /// The head of an answer, and not the body that it promises until the server stops.
        case hangAfterHead(status: Int)
    }

    public typealias Script = @Sendable (Request) -> Reply

    private static let requestByteCountMax = 1 << 20
    private static let pollMilliseconds: CInt = 20
    public let path: String
    private let listener: CInt
    private let script: Script
    private let seen = Mutex<[Request]>([])
    private let isStopped = Atomic(false)
    private let running = Atomic(0)

    /// Listens on a new unix socket at `path`, and calls `script` for each request on a thread of its own.
    public init(path: String, script: @escaping Script) throws(SystemFailure) {
        self.path = path
        self.script = script
        listener = try Self.listen(path)
        start { $0.accept() }
    }

    /// The requests that have come, in their order.
    public var requests: [Request] { seen.withLock { $0 } }

    /// Closes everything and waits until all threads have ended. Has to be called.
    public func stop() {
        isStopped.store(true, ordering: .relaxed)
        while running.load(ordering: .acquiring) > 0 { usleep(1000) }
        close(listener)
        // SAFETY: the bridged string lives for the call.
        _ = unsafe unlink(path)
    }

    /// A system call that failed.
    public struct SystemFailure: Error, Sendable {
        public let call: String
        public let errorNumber: CInt

        init(_ call: String) {
            self.call = call
            self.errorNumber = errno
        }
    }
}

// MARK: - Sockets

extension ScriptedHTTPServer {
    private static func listen(_ path: String) throws(SystemFailure) -> CInt {
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw SystemFailure("socket") }
        guard bind(descriptor, path), Glibc.listen(descriptor, 16) == 0 else {
            let failure = SystemFailure("bind")
            close(descriptor)
            throw failure
        }
        return descriptor
    }

    private static func bind(_ descriptor: CInt, _ path: String) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let name = Array(path.utf8)
        // SAFETY: `name` is checked to fit, with its terminator, in the zeroed array.
        let fits = unsafe withUnsafeMutableBytes(of: &address.sun_path) { target in
            guard name.count < target.count else { return false }
            unsafe target.copyBytes(from: name)
            return true
        }
        guard fits else {
            errno = ENAMETOOLONG
            return false
        }
        // SAFETY: the address is a sockaddr_un of the length given, and lives for the call.
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe Glibc.bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
            }
        }
    }

    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private func start(_ body: @escaping @Sendable (ScriptedHTTPServer) -> Void) {
        running.add(1, ordering: .relaxed)
        let box = Body {
            body(self)
            self.running.subtract(1, ordering: .releasing)
        }
        var thread = pthread_t()
        // SAFETY: the new thread takes over the retained reference.
        let code = unsafe pthread_create(
            &thread, nil,
            { argument in
                if let argument = unsafe argument {
                    unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                }
                return nil
            }, Unmanaged.passRetained(box).toOpaque())
        precondition(code == 0, "a test can start a thread: \(code)")
        pthread_detach(thread)
    }

    private func accept() {
        while waitUntilReadable(listener) {
            let descriptor = Glibc.accept(listener, nil, nil)
            if descriptor >= 0 { start { $0.serve(descriptor) } }
        }
    }

    /// `false` when the server stops.
    private func waitUntilReadable(_ descriptor: CInt) -> Bool {
        while !isStopped.load(ordering: .relaxed) {
            var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            // SAFETY: one item is passed, and lives for the call.
            if unsafe poll(&item, 1, Self.pollMilliseconds) > 0 { return true }
        }
        return false
    }
}

// MARK: - One connection

extension ScriptedHTTPServer {
    private func serve(_ descriptor: CInt) {
        defer { close(descriptor) }
        guard let request = receive(descriptor) else { return }
        seen.withLock { $0.append(request) }
        switch script(request) {
        case .answer(let status, let body):
            let head = "HTTP/1.1 \(status) Scripted\r\ncontent-length: \(body.utf8.count)\r\n"
            send(Array((head + "connection: close\r\n\r\n" + body).utf8), to: descriptor)
        case .close: break
        case .hang: waitForStop()
        case .hangAfterHead(let status):
            let head = "HTTP/1.1 \(status) Scripted\r\ncontent-length: 5\r\n\r\n{"
            send(Array(head.utf8), to: descriptor)
            waitForStop()
        }
    }

    private func waitForStop() {
        while !isStopped.load(ordering: .relaxed) { usleep(1000) }
    }

    private func receive(_ descriptor: CInt) -> Request? {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count < Self.requestByteCountMax, waitUntilReadable(descriptor) {
            // SAFETY: the length is that of `chunk`.
            let count = unsafe read(descriptor, &chunk, chunk.count)
            guard count > 0 else { return nil }
            bytes += chunk.prefix(count)
            if let request = Self.parse(bytes) { return request }
        }
        return nil
    }

    /// `nil` until the request is complete.
    private static func parse(_ bytes: [UInt8]) -> Request? {
        let end: [UInt8] = [13, 10, 13, 10]
        guard let start = bytes.indices.first(where: { bytes[$0...].starts(with: end) }) else {
            return nil
        }
        let lines = String(decoding: bytes[..<start], as: UTF8.self)
            .split(separator: "\r\n").map(String.init)
        guard let words = lines.first?.split(separator: " "), words.count == 3 else { return nil }
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { continue }
            headers[parts[0].lowercased()] = String(parts[1].drop { $0 == " " })
        }
        let body = bytes[(start + end.count)...]
        guard body.count >= headers["content-length"].flatMap({ Int($0) }) ?? 0 else { return nil }
        return Request(
            method: String(words[0]), target: String(words[1]), headers: headers, body: Array(body))
    }

    private func send(_ bytes: [UInt8], to descriptor: CInt) {
        var sent = 0
        while sent < bytes.count {
            // SAFETY: the range lies inside `bytes`; a peer that has gone gives an error, no signal.
            let count = unsafe bytes[sent...].withUnsafeBytes { rest in
                unsafe Glibc.send(
                    descriptor, rest.baseAddress, rest.count, CInt(MSG_NOSIGNAL))
            }
            guard count > 0 else { return }
            sent += count
        }
    }
}
