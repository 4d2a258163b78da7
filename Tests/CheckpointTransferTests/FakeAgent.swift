import CheckpointTransfer
import FoundationEssentials
import Glibc
import Logging

/// A program that speaks the agent's protocol and moves no bytes. Its file goes with this object.
final class FakeAgent: Sendable {
    /// What the program does wrong.
    enum Mode: String, CaseIterable {
        case works
        case failed
        case silent
        case garbage
        case garbageLater
        case endlessLine
        case answersNobody
        case answersWrongly
        case understandsNothing
        case stopsReading
        case endsAtOnce
        case diesInRead
        case hangsInRead
        /// Answers maps and reads when it is pinged next.
        case waitsForPing
        case ignoresTheEnd
        case refusesMaps
        case closesOutput
    }

    static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private let path: String

    init() throws {
        path = "/tmp/fake-transfer-agent-\(getpid())-\(UInt64.random(in: 0 ... .max)).py"
        try Data(Self.program.utf8).write(to: URL(filePath: path))
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func configuration(_ mode: Mode, startTimeout: Duration = .seconds(20)) -> AgentConfiguration {
        var configuration = AgentConfiguration(
            host: "127.0.0.1", protocolName: .tcp, devices: ["mlx5_0", "mlx5_1"],
            gpuBusIDs: ["0000:01:00.0"])
        configuration.arguments = [path]
        configuration.environment = ["FAKE_MODE": mode.rawValue]
        configuration.startTimeout = startTimeout
        return configuration
    }

    func start(_ mode: Mode) async throws(TransferError) -> TransferAgent {
        try await TransferAgent.start(configuration(mode), logger: Self.quiet)
    }

    /// The error of a call that has to fail.
    static func error<Value>(
        of body: () async throws(TransferError) -> Value
    ) async -> TransferError? {
        do throws(TransferError) {
            _ = try await body()
            return nil
        } catch {
            return error
        }
    }

    private static let program = """
        import argparse, json, os, signal, sys, threading, time

        parser = argparse.ArgumentParser()
        parser.add_argument("--host")
        parser.add_argument("--protocol")
        parser.add_argument("--device", action="append", default=[])
        parser.add_argument("--gpu-bus-id", action="append", default=[])
        options = parser.parse_args()
        mode = os.environ["FAKE_MODE"]

        def say(message):
            sys.stdout.write(json.dumps(message) + "\\n")
            sys.stdout.flush()

        print("the fake agent begins:", mode, file=sys.stderr, flush=True)
        if mode == "failed":
            say({"event": "failed", "error": "the wheel is missing; pip install it"})
            sys.exit(3)
        if mode == "silent":
            time.sleep(600)
        if mode == "endsAtOnce":
            sys.exit("No module named checkpoint_engine")
        if mode == "garbage":
            print("Hello!", flush=True)
            time.sleep(600)
        if mode == "endlessLine":
            while True:
                sys.stdout.write("x" * 65536)
        if mode == "ignoresTheEnd":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say({"event": "ready", "session": f"{options.host}:{os.getpid() % 60000 + 1}",
             "protocol": options.protocol, "devices": options.device + options.gpu_bus_id,
             "version": "0.3.13.post1"})
        if mode == "stopsReading":
            time.sleep(600)
        if mode == "closesOutput":
            os.close(1)
            time.sleep(600)
        addresses = set()
        next_address = (os.getpid() << 24)
        held = []

        def answer(message):
            if mode == "waitsForPing" and op in ("map", "read"):
                held.append(message)
            else:
                say(message)

        for line in sys.stdin:
            request = json.loads(line)
            number, op = request["id"], request["op"]
            if op == "ping":
                for message in held:
                    say(message)
                held.clear()
                if mode == "garbageLater":
                    say([1, 2])
                elif mode == "answersNobody":
                    say({"id": number + 1})
                elif mode == "understandsNothing":
                    say({"id": None, "error": "malformed line"})
                elif mode == "answersWrongly":
                    say({"id": number, "address": 4096})
                else:
                    say({"id": number})
            elif op == "map":
                assert isinstance(request["writable"], bool) and request["bytes"] > 0
                if mode == "refusesMaps" and "bad" in request["path"]:
                    say({"id": number, "error": f"the inode is not {request['inode']}"})
                else:
                    next_address += 4096
                    addresses.add(next_address)
                    answer({"id": number, "address": next_address})
            elif op == "unmap":
                if request["address"] in addresses:
                    addresses.remove(request["address"])
                    say({"id": number})
                else:
                    say({"id": number, "error": f"{len(addresses)} are mapped, not this one"})
            elif mode == "diesInRead":
                print("a segmentation fault", file=sys.stderr, flush=True)
                os._exit(7)
            elif mode == "hangsInRead":
                pass
            else:
                total = sum(count for local, remote, count in request["ranges"] if local < remote)
                answer({"id": number, "seconds": total / 1024})
        if mode == "ignoresTheEnd":
            time.sleep(600)
        """
}
