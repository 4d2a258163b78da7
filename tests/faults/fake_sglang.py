"""SGLang's HTTP calls in front of worker processes: one whole session for each of its models."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fake_engine import EngineHandler, FakeEngine, Script

if TYPE_CHECKING:
    from fault_workers import Fault, Outcome, Worker


@dataclass
class SGLangScript:
    """What the server does with the next calls."""

    # Sessions of one call: the model's, and one for each model that drafts.
    sessions: int = 1
    # Faults by worker and session; those of the first session are in the script of the base.
    faults: dict[tuple[int, int], Fault] = field(default_factory=dict)
    # What the server tells instead of success, and with which status.
    failure: tuple[int, str] | None = None
    ping: int = 200
    info: dict[str, object] = field(default_factory=dict)
    info_status: int = 200


class FakeSGLang(FakeEngine):
    """A server with ``worker_count`` tensor-parallel workers."""

    def __init__(self, worker_count: int) -> None:
        self.sglang = SGLangScript()
        # What the calls of updates have brought besides addresses.
        self.requests: list[dict[str, object]] = []
        super().__init__(worker_count)

    def reset(self) -> None:
        super().reset()
        self.sglang = SGLangScript()
        self.requests.clear()

    def handler(self) -> type[EngineHandler]:
        return _SGLangHandler

    def ask(self, worker: Worker, addresses: dict[str, str], script: Script) -> Outcome:
        """Session after session, on the same address, as the scheduler of one rank does."""
        address = addresses[f"CPU-{worker.rank}"]
        for session in range(self.sglang.sessions):
            fault = self.sglang.faults.get((worker.rank, session))
            outcome = worker.ask(address, fault)
            if outcome.error or session == self.sglang.sessions - 1:
                break
            self.sessions.append(outcome)
        return outcome


class _SGLangHandler(EngineHandler):
    fake: FakeSGLang

    def do_GET(self) -> None:  # noqa: N802 - the base's name
        script = self.fake.sglang
        self.fake.control.note("GET", self.path, b"", self.headers.get("authorization"))
        if self.path == "/ping":
            self._send(script.ping, {})
        elif self.path == "/server_info":
            size = {"tp_size": len(self.fake.workers), "dp_size": 1, "pp_size": 1}
            self._send(script.info_status, {**size, **script.info})
        else:
            self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:  # noqa: N802 - the base's name
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.fake.control.note("POST", self.path, body, self.headers.get("authorization"))
        if self._controls(body):
            return
        if self.path == "/update_weights_from_ipc":
            self._take(json.loads(body))
        else:
            self._send(404, {"detail": "Not Found"})

    def _take(self, request: dict[str, object]) -> None:
        addresses = request.pop("zmq_handles")
        assert isinstance(addresses, dict)
        self.fake.requests.append(request)
        if self.fake.script.update == "hang":
            self.fake.hang()
            return
        if isinstance(self.fake.script.update, int):
            self._send(self.fake.script.update, {"error": "scripted"})
            return
        answer = self.fake.update(addresses)
        if answer is None or self.fake.script.update == "hang after workers":
            self.fake.hang()
            self.close_connection = True
        elif answer[0] != 200:
            self._send(400, {"success": False, "message": answer[1]["error"]["message"]})
        elif self.fake.sglang.failure:
            status, message = self.fake.sglang.failure
            self._send(status, {"success": False, "message": message})
        else:
            self._send(200, {"success": True, "message": "Succeeded to update model weights."})
