import FoundationEssentials
import Glibc

/// A transfer agent without a network: a program that speaks the agent's protocol, and copies from the files
/// that other such programs, or the test itself, have told of in a common directory.
public final class FakeTransferAgent: Sendable {
    /// What reads from a session do wrong. Each read counts.
    public struct Fault: Hashable, Sendable {
        /// Reads that it concerns; `nil` for all from now on.
        public var count: Int?
        /// How long a read waits before it copies.
        public var delaySeconds = 0.0
        /// A bit of every 512 bytes is flipped.
        public var flips = false
        /// The read is answered with an error.
        public var fails = false
        /// The reading agent ends.
        public var kills = false
        /// The read never ends.
        public var hangs = false

        public init(count: Int? = nil) { self.count = count }
    }

    /// A shard's bytes as a session offers them.
    public struct Mapping: Hashable, Sendable {
        public let address: UInt
        public let byteCount: Int
        public let path: String

        public init(address: UInt, byteCount: Int, path: String) {
            self.address = address
            self.byteCount = byteCount
            self.path = path
        }
    }

    private let directory: TemporaryDirectory
    private let program: String

    public init() throws {
        directory = try TemporaryDirectory()
        program = try directory.write(Array(Self.text.utf8), to: "agent.py")
    }

    /// What comes after the name of the interpreter.
    public var arguments: [String] { [program, directory.path] }

    /// Tells of memory that can be read as "host:`port`".
    public func publish(_ mappings: [Mapping], port: Int) throws {
        let rows = mappings.map { "[\($0.address),\($0.byteCount),\"\($0.path)\"]" }
        let text = "{\"process\":\(getpid()),\"mappings\":[\(rows.joined(separator: ","))]}"
        try replace("\(port).json", text)
    }

    /// Reads from "host:`port`" fail as `fault` says from now on; `nil` ends that.
    public func set(_ fault: Fault?, port: Int) throws {
        guard let fault else {
            try? FileManager.default.removeItem(atPath: "\(directory.path)/\(port).fault")
            return
        }
        try replace(
            "\(port).fault",
            """
            {"count":\(fault.count ?? -1),"delay":\(fault.delaySeconds),"flips":\(fault.flips),\
            "fails":\(fault.fails),"kills":\(fault.kills),"hangs":\(fault.hangs)}
            """)
    }

    /// The ports of all sessions that there were, in the order of their numbers.
    public var ports: [Int] {
        directory.names.compactMap { name in
            name.hasSuffix(".json") ? Int(name.dropLast(".json".count)) : nil
        }.sorted()
    }

    /// The processes that have read or offered anything and still run.
    public var processes: [Int32] {
        directory.names.compactMap { name in
            name.hasSuffix(".process") ? Int32(name.dropLast(".process".count)) : nil
        }.filter { kill($0, 0) == 0 }
    }

    private func replace(_ name: String, _ text: String) throws {
        let path = try directory.write(Array(text.utf8), to: name + ".new")
        guard unsafe rename(path, "\(directory.path)/\(name)") == 0 else {
            throw ScriptedHTTPServer.SystemFailure("rename")
        }
    }

    private static let text = """
        json, mmap, os, queue, socket, sys, threading, time = map(
            __import__, "json mmap os queue socket sys threading time".split())

        directory, options = sys.argv[1], sys.argv[2:]
        time.sleep(float(os.environ.get("FAKE_START_SECONDS", "0")))
        host = options[options.index("--host") + 1]
        lock = threading.Lock()


        def say(message):
            with lock:
                sys.stdout.write(json.dumps(message) + "\\n")
                sys.stdout.flush()


        if "FAKE_FAILURE" in os.environ:
            say({"event": "failed", "error": os.environ["FAKE_FAILURE"]})
            sys.exit(3)
        listener = socket.socket()
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        open(f"{directory}/{os.getpid()}.process", "w").close()
        mappings, next_address, lines, views = {}, 1 << 40, {}, {}


        def publish():
            rows = [[address, size, path] for address, (size, path, _) in mappings.items()]
            new = f"{directory}/{port}.json.{os.getpid()}"
            with open(new, "w") as file:
                json.dump({"process": os.getpid(), "mappings": rows}, file)
            os.rename(new, f"{directory}/{port}.json")


        def view(path, writable):
            descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
            try:
                access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
                return mmap.mmap(descriptor, 0, access=access)
            finally:
                os.close(descriptor)


        def take_fault(source):
            path = f"{directory}/{source}.fault"
            try:
                with open(path) as file:
                    fault = json.load(file)
            except FileNotFoundError:
                return {}
            if fault["count"] == 0:
                return {}
            if fault["count"] > 0:
                fault["count"] -= 1
                new = f"{path}.{os.getpid()}"
                with open(new, "w") as file:
                    json.dump(fault, file)
                os.rename(new, path)
            return fault


        def copy(source, ranges, flips):
            with open(f"{directory}/{source}.json") as file:
                offer = json.load(file)
            os.kill(offer["process"], 0)
            for local, remote, count in ranges:
                address, size, path = next(
                    row for row in offer["mappings"] if row[0] <= remote < row[0] + row[1])
                assert remote + count <= address + size, "the remote range ends outside"
                key = (path, os.stat(path).st_ino)
                if key not in views:
                    views[key] = view(path, False)
                base, (_, _, memory) = next(
                    item for item in mappings.items() if item[0] <= local < item[0] + item[1][0])
                content = bytearray(views[key][remote - address:remote - address + count])
                if flips:
                    content[::512] = bytes(byte ^ 1 for byte in content[::512])
                memory[local - base:local - base + count] = bytes(content)


        def serve(session, tasks):
            while True:
                number, ranges = tasks.get()
                source = session.rsplit(":", 1)[1]
                fault = take_fault(source)
                if fault.get("kills"):
                    os._exit(7)
                while fault.get("hangs"):
                    time.sleep(60)
                time.sleep(fault.get("delay", 0))
                try:
                    assert not fault.get("fails"), "the transfer failed"
                    copy(source, ranges, fault.get("flips", False))
                    say({"id": number, "seconds": 0.001})
                except Exception as error:
                    say({"id": number, "error": f"{type(error).__name__}: {error}"})


        publish()
        say({"event": "ready", "session": f"{host}:{port}", "protocol": "tcp", "devices": [],
             "version": "0"})
        for line in sys.stdin:
            request = json.loads(line)
            number = request["id"]
            try:
                if request["op"] == "map":
                    path, status = request["path"], os.stat(request["path"])
                    assert status.st_ino == request["inode"], f"the inode of {path} is another"
                    assert status.st_size == request["bytes"], f"{path} has another size"
                    address = next_address
                    next_address += (request["bytes"] + (1 << 21)) & ~((1 << 20) - 1)
                    mappings[address] = (
                        request["bytes"], path, view(path, request["writable"]))
                    publish()
                    say({"id": number, "address": address})
                elif request["op"] == "unmap":
                    del mappings[request["address"]]
                    publish()
                    say({"id": number})
                elif request["op"] == "ping":
                    say({"id": number})
                else:
                    session = request["session"]
                    if session not in lines:
                        lines[session] = queue.Queue()
                        threading.Thread(
                            target=serve, args=(session, lines[session]), daemon=True).start()
                    lines[session].put((number, request["ranges"]))
            except Exception as error:
                say({"id": number, "error": f"{type(error).__name__}: {error}"})
        os._exit(0)
        """
}
