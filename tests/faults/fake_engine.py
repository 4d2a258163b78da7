"""An engine as the daemon sees it: vLLM's HTTP calls in front of worker processes, and faults."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal, Self

from fake_control import Control
from fault_workers import PAUSE_S_MAX, Fault, Outcome, Worker, WorkerDiedError

if TYPE_CHECKING:
    from pathlib import Path

Answer = Literal["normal", "hang", "drop", "ok without workers", "hang after workers"] | int


@dataclass
class Script:
    """What the engine does with the next calls. A number is an HTTP status to answer with."""

    workers: dict[int, Fault] = field(default_factory=dict)
    update: Answer = "normal"
    health: Answer = "normal"
    world_size: Answer = "normal"
    reset: Answer = "normal"
    # The workers get each other's addresses.
    swaps_addresses: bool = False
    # An engine that does not notice the end of a worker leaves the call unanswered.
    notices_dead_workers: bool = True


class FakeEngine:
    """An engine with ``worker_count`` workers on a loopback port, or on the socket ``uds``."""

    def __init__(self, worker_count: int, uds: Path | None = None) -> None:
        self.script = Script()
        self.control = Control()
        self.uds = uds
        self.workers = [Worker(rank) for rank in range(worker_count)]
        # What each call of the update has brought, the newest last.
        self.updates: list[list[Outcome]] = []
        # The outcomes of the last call's sessions but their last, by worker.
        self.sessions: list[Outcome] = []
        self.addresses: dict[str, str] = {}
        self.cache_resets = 0
        self.hung = threading.Event()
        self._running = 0
        self._ended = threading.Condition()
        self._closing = threading.Event()
        self._server = self._listen()
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        if self.uds is not None:
            return "http://localhost"
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}"

    def reset(self) -> None:
        """Back to an engine without faults whose workers all live."""
        self.script = Script()
        for hold in self.control.holds.values():
            hold.set()
        self._closing.set()  # lets calls that hang go
        for worker in self.workers:
            worker.reset()
        with self._ended:
            assert self._ended.wait_for(lambda: self._running == 0, PAUSE_S_MAX)
        self._closing = threading.Event()
        self.hung.clear()
        self.control = Control()
        self.updates.clear()
        self.addresses = {}
        self.cache_resets = 0

    def wait_for_update(self, count: int, timeout: float) -> list[Outcome]:
        """The outcomes of update number ``count``, which may be to come."""
        with self._ended:
            arrived = self._ended.wait_for(lambda: len(self.updates) >= count, timeout)
        assert arrived, f"update {count} has not ended on the engine's side after {timeout} s"
        return self.updates[count - 1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        for worker in self.workers:
            worker.resumed.set()
            worker.close()

    # Calls

    def update(self, addresses: dict[str, str]) -> tuple[int, dict[str, object]] | None:
        """Lets every worker take the update; ``None`` when no answer is to be given."""
        script = self.script
        self.addresses = addresses
        if script.swaps_addresses:
            addresses = dict(zip(addresses, reversed(list(addresses.values())), strict=True))
        with self._ended:
            self._running += 1
        outcomes: list[Outcome] = []
        self.sessions = []
        died: list[WorkerDiedError] = []
        pool = ThreadPoolExecutor(len(self.workers))
        asked = [pool.submit(self.ask, worker, addresses, script) for worker in self.workers]
        pool.shutdown(wait=False)
        for answer in as_completed(asked):
            try:
                outcomes.append(answer.result())
            except WorkerDiedError as error:
                died.append(error)
                if script.notices_dead_workers:
                    break
        with self._ended:
            self.updates.append(sorted(outcomes, key=lambda outcome: outcome.rank))
            self._running -= 1
            self._ended.notify_all()
        if died and not script.notices_dead_workers:
            return None
        failures = [str(error) for error in died]
        failures += [outcome.error for outcome in outcomes if outcome.error]
        if failures:
            return 500, {"error": {"message": failures[0], "code": 500}}
        return 200, {"results": [None] * len(self.workers)}

    def ask(self, worker: Worker, addresses: dict[str, str], script: Script) -> Outcome:
        """Lets one worker take the update."""
        return _ask(worker, addresses, script)

    def hang(self) -> None:
        """Holds a call until the next reset."""
        closing = self._closing
        self.hung.set()
        closing.wait()

    def handler(self) -> type[EngineHandler]:
        """What answers the engine's calls."""
        return EngineHandler

    def _listen(self) -> ThreadingHTTPServer:
        engine = self

        class Handler(self.handler()):  # type: ignore[misc]
            fake = engine

        if self.uds is None:
            return ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        return _UnixServer(str(self.uds), Handler)


def _ask(worker: Worker, addresses: dict[str, str], script: Script) -> Outcome:
    address = addresses.get(f"CPU-{worker.rank}")
    if address is None:
        error = f"no address for CPU-{worker.rank} among {sorted(addresses)}"
        return Outcome(worker.rank, worker.pid, error)
    return worker.ask(address, script.workers.get(worker.rank))


class _UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)


class EngineHandler(BaseHTTPRequestHandler):
    """vLLM's calls."""

    fake: FakeEngine
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.fake.control.note("GET", self.path, b"", self.headers.get("authorization"))
        if self._controls(b""):
            return
        if path == "/health":
            self._respond(self.fake.script.health, (200, {}))
        elif path == "/get_world_size":
            self._respond(
                self.fake.script.world_size, (200, {"world_size": len(self.fake.workers)})
            )
        else:
            self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        control = self.fake.control
        control.note("POST", self.path, body, self.headers.get("authorization"))
        if self._controls(body):
            return
        if self.path.split("?")[0] == "/reset_prefix_cache":
            self.fake.cache_resets += 1
            control.held_resets -= 1
            self._respond(self.fake.script.reset, (200, {"success": control.held_resets < 0}))
        elif self.path == "/collective_rpc":
            self._update(json.loads(body))
        else:
            self._send(404, {"detail": "Not Found"})

    def _controls(self, body: bytes) -> bool:
        """Whether it was a call about pauses, sleep or versions, which is answered then."""
        scripted = self.fake.control.scripted(self.path)
        if scripted is not None:
            self._respond(scripted, (200, {}))
            return True
        answer = self.fake.control.answer(self.path, body)
        if answer is not None:
            self._send(200, answer)
        return answer is not None

    def _update(self, call: dict[str, object]) -> None:
        match self.fake.script.update:
            case "normal" | "hang after workers" as mode:
                assert call["method"] == "update_weights_from_ipc"
                [addresses] = call["args"]  # type: ignore[misc]
                answer = self.fake.update(addresses)
                if answer is None or mode == "hang after workers":
                    self.fake.hang()
                    self.close_connection = True
                else:
                    self._send(*answer)
            case "ok without workers":
                self._send(200, {"results": []})
            case other:
                self._respond(other, (200, {}))

    def _respond(self, answer: Answer, normal: tuple[int, dict[str, object]]) -> None:
        match answer:
            case int():
                self._send(answer, {"error": f"scripted to answer {answer}"})
            case "hang":
                self.fake.hang()
                self.close_connection = True
            case "drop":
                self.close_connection = True
            case _:
                self._send(*normal)

    def _send(self, status: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the daemon has given up waiting

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Tests print what matters."""
