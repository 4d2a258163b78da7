"""A stand-in for a vLLM server with its native weight transfer over NCCL: routes, bodies, answers.

Its workers are processes, one for each simulated GPU; the HTTP server is in the test's process.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from native_worker import main

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

_BODY_BYTES_MAX = 256 << 20
PAUSE_MODES = ("abort", "wait", "keep")


class WorkerError(RuntimeError):
    """A worker has refused a call, or is dead."""


class BadRequestError(ValueError):
    """A body or a query that the route does not take."""


class _Process:
    """One worker; calls go one after the other."""

    def __init__(self, library: str, gpu: int, rank: int, timeout: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection: Connection
        self._connection, other = context.Pipe()
        self._lock = threading.Lock()
        self._timeout = timeout
        arguments = (other, library, gpu, rank, timeout)
        self.process = context.Process(target=main, args=arguments, daemon=True)
        self.process.start()
        other.close()

    def call(self, method: str, *arguments: object) -> Any:
        with self._lock:
            try:
                self._connection.send((method, arguments))
                # Longer than the worker's own deadlines, of which a call has several.
                if not self._connection.poll(3 * self._timeout):
                    raise WorkerError(f"{method} has not ended in time")
                answer, error = self._connection.recv()
            except (EOFError, OSError) as gone:
                raise WorkerError(f"the worker died in {method}") from gone
        if error is not None:
            raise WorkerError(error)
        return answer

    def stop(self) -> None:
        self._connection.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(10)


class NativeEngine:
    """The server and its workers, as a context.

    ``timeout`` bounds each wait of a worker in seconds. Calls of the API are kept in :attr:`calls`.
    """

    def __init__(self, library: str, gpus: Sequence[int], timeout: float = 30.0) -> None:
        self._library = library
        self._timeout = timeout
        self._gpus = list(gpus)
        self._errors: dict[str, list[int]] = {}
        self.refuses_second_init = False
        self.calls: list[str] = []
        self.inits = 0
        self.is_paused = False
        self.weight_version: str | None = None
        self._workers = [self._make(rank) for rank in range(len(self._gpus))]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.each("chunk_sizes")

    def _make(self, rank: int) -> _Process:
        return _Process(self._library, self._gpus[rank], rank, self._timeout)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid or 0 for worker in self._workers]

    # What tests ask of it.

    def fail(self, path: str, *, times: int = 1, status: int = 500) -> None:
        """The next calls of a route fail before any worker is asked."""
        self._errors[path] = [status] * times

    def kill_worker(self, rank: int, chunk: int) -> None:
        """The worker dies instead of receiving that chunk of the next session, counted from 0."""
        self._workers[rank].call("die_at", chunk)

    def pause_worker(self, rank: int, chunk: int, seconds: float) -> None:
        self._workers[rank].call("pause_at", chunk, seconds)

    def respawn(self) -> None:
        """New workers in the place of dead ones: they hold nothing and are in no group."""
        for rank, worker in enumerate(self._workers):
            if not worker.process.is_alive():
                worker.stop()
                self._workers[rank] = self._make(rank)
        self.each("chunk_sizes")

    def each(self, method: str, *arguments: object) -> list[Any]:
        """The answers of all workers, asked at the same time; failures when all have ended."""
        answers: list[Any] = [None] * len(self._workers)
        errors: list[str] = []

        def ask(rank: int) -> None:
            try:
                answers[rank] = self._workers[rank].call(method, *arguments)
            except WorkerError as error:
                errors.append(f"worker {rank}: {error}")

        threads = [threading.Thread(target=ask, args=(rank,)) for rank in range(len(answers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise WorkerError("; ".join(sorted(errors)))
        return answers

    def check_holds(self, directory: Path) -> None:
        """Every worker has every tensor of the safetensors files, bit for bit, and no other."""
        for rank, found in enumerate(self.each("differences", directory)):
            assert found == [], f"worker {rank}: {found[:5]} of {len(found)}"

    # The API.

    def answer(self, method: str, target: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and content of one call."""
        parts = urlsplit(target)
        self.calls.append(f"{method} {parts.path}")
        if self._errors.get(parts.path):
            return _error(self._errors[parts.path].pop(), "an error that the test has asked for")
        route = getattr(self, f"_{method.lower()}{parts.path.replace('/', '_')}", None)
        if route is None:
            return _error(404, "Not Found")
        try:
            return 200, route(body, parse_qs(parts.query))
        except BadRequestError as error:
            return _error(400, str(error))
        except WorkerError as error:
            return _error(500, str(error))

    def _get_health(self, _body: dict[str, Any], _query: dict[str, list[str]]) -> dict[str, Any]:
        if not all(worker.process.is_alive() for worker in self._workers):
            raise WorkerError("a worker is dead")
        return {}

    def _get_get_world_size(
        self, _body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        return {"world_size": len(self._workers)}

    def _get_is_paused(self, _body: dict[str, Any], _query: dict[str, list[str]]) -> dict[str, Any]:
        return {"is_paused": self.is_paused}

    def _get_weight_info(
        self, _body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        return {"weight_version": self.weight_version}

    def _post_pause(self, _body: dict[str, Any], query: dict[str, list[str]]) -> dict[str, Any]:
        mode = query.get("mode", ["abort"])[-1]
        if mode not in PAUSE_MODES:
            raise BadRequestError(
                f"query.mode: Input should be 'abort', 'wait' or 'keep', not {mode!r}"
            )
        self.is_paused = True
        return {"status": "paused"}

    def _post_resume(self, _body: dict[str, Any], _query: dict[str, list[str]]) -> dict[str, Any]:
        self.is_paused = False
        return {"status": "resumed"}

    def _post_init_weight_transfer_engine(
        self, body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        info = _field(body, "init_info", dict)
        if self.inits > 0 and self.refuses_second_init:
            raise WorkerError("the weight transfer engine was initialised before")
        self.inits += 1
        self.each("init", info)
        return {"message": "Weight transfer initialized"}

    def _post_shutdown_weight_transfer_engine(
        self, _body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        self.each("shutdown")
        return {"message": "Weight transfer shut down"}

    def _post_start_weight_update(
        self, _body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        self.each("start")
        return {"message": "Weight update started"}

    def _post_update_weights(
        self, body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        self.each("update", _field(body, "update_info", (dict, list)))
        return {"message": "Weights updated"}

    def _post_finish_weight_update(
        self, body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        version = _field({"weight_version": None, **body}, "weight_version", (str, type(None)))
        self.each("finish")
        if version is not None:
            self.weight_version = version
        return {"message": "Weight update finished"}

    def _post_reset_prefix_cache(
        self, _body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        return {"success": True}

    def _post_update_weight_version(
        self, body: dict[str, Any], _query: dict[str, list[str]]
    ) -> dict[str, Any]:
        self.weight_version = _field(body, "new_version", str)
        return {"success": True, "new_version": self.weight_version}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_GET(self) -> None:
                self._reply(*engine.answer("GET", self.path, {}))

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                if length > _BODY_BYTES_MAX:
                    self.close_connection = True
                    self._reply(*_error(413, "the body is too large"))
                    return
                content = self.rfile.read(length)
                try:
                    body = json.loads(content) if content else {}
                except ValueError:
                    body = None
                if isinstance(body, dict):
                    self._reply(*engine.answer("POST", self.path, body))
                else:
                    self._reply(*_error(400, "body: no object of JSON"))

            def _reply(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _field(body: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    if name not in body or not isinstance(body[name], kind):
        raise BadRequestError(f"body.{name}: missing, or of another type")
    return body[name]


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    kinds = {400: "BadRequestError", 404: "NotFoundError"}
    kind = kinds.get(status, "InternalServerError")
    return status, {"error": {"message": message, "type": kind, "param": None, "code": status}}
