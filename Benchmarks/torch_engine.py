"""A stand-in for an inference engine: vLLM's HTTP calls in front of one torch process a GPU.

Each worker holds its tensor-parallel slices and takes updates as vLLM's workers do, through
``update_weights_from_ipc`` of this project or of any package with the same function. Besides vLLM's
calls: ``POST /verify {"path": …, "tp": …}``, ``POST /scramble``, ``GET /memory``,
``POST /fault {"rank": …, "stage": …, "kind": …, "seconds": …}`` for the next update,
``POST /respawn {"all": …}``, ``GET /workers`` and ``GET /last``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch_worker
from torch_worker import Fault, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[1]
CONTEXT = get_context("spawn")
START_S_MAX = 180.0
# A worker does not take longer for anything but an update, which has the sender's deadline.
ORDER_S_MAX = 300.0

Reply = tuple[int, dict[str, Any]]


class WorkerDiedError(Exception):
    """The process has ended instead of answering."""


class WorkerFailedError(Exception):
    """The worker has raised; the message is its traceback."""


class WorkerProcess:
    """The engine's handle of one worker."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.identity = ""
        self._busy = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._orders, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(
            target=torch_worker.main, args=(self.place, theirs, os.getpid()), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def wait_until_up(self) -> None:
        """Raises ``WorkerDiedError`` or ``WorkerFailedError`` when the worker does not start."""
        with self._busy:
            self.identity = self._receive(START_S_MAX)["id"]

    def ask(self, order: str, *arguments: Any, timeout: float | None = ORDER_S_MAX) -> Any:
        """The answer to one order, after those that the worker is still busy with."""
        with self._busy:
            try:
                self._orders.send((order, arguments))
            except OSError as error:
                raise self._died() from error
            return self._receive(timeout)

    def _receive(self, timeout: float | None) -> Any:
        try:
            if not self._orders.poll(timeout):
                raise TimeoutError(f"worker {self.place.rank} has not answered for {timeout} s")
            succeeded, answer = self._orders.recv()
        except (EOFError, OSError) as error:
            if isinstance(error, TimeoutError):
                self.kill()  # a late answer would be taken for that to the next order
                raise
            raise self._died() from error
        if not succeeded:
            raise WorkerFailedError(f"worker {self.place.rank}:\n{answer}")
        return answer

    def _died(self) -> WorkerDiedError:
        self._process.join(5)
        code = self._process.exitcode
        return WorkerDiedError(f"worker {self.place.rank} died unexpectedly, exit code {code}")

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def respawn(self) -> None:
        """Starts a process anew that has ended."""
        with self._busy:
            self._orders.close()
            self._start()
        self.wait_until_up()


class Engine:
    """All workers, and what the HTTP calls do with them."""

    def __init__(self, devices: list[str], module: str, path: str | None) -> None:
        places = [
            Place(rank, len(devices), device, module, path) for rank, device in enumerate(devices)
        ]
        self._workers = [WorkerProcess(place) for place in places]
        self._fault: Fault | None = None
        self._last: dict[str, Any] = {}
        self._respawning = threading.Lock()
        try:
            for worker in self._workers:
                worker.wait_until_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()

    def get(self, path: str) -> Reply:
        """The answer to a GET."""
        match path:
            case "/health":
                return 200, {}
            case "/get_world_size":
                return 200, {"world_size": len(self._workers)}
            case "/memory":
                return 200, {"workers": self._ask_all("memory")}
            case "/workers":
                rows = [
                    {"id": w.identity, "pid": w.pid, "alive": w.is_alive} for w in self._workers
                ]
                return 200, {"workers": rows}
            case "/last":
                return 200, self._last
        return 404, {"detail": "Not Found"}

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        """The answer to a POST."""
        actions: dict[str, Callable[[dict[str, Any]], Reply]] = {
            "/collective_rpc": self._collective_rpc,
            "/reset_prefix_cache": lambda _: (200, {"success": True}),
            "/verify": self._verify,
            "/scramble": lambda _: (200, {"workers": self._ask_all("scramble")}),
            "/fault": self._set_fault,
            "/respawn": lambda body: (200, {"respawned": self._respawn(bool(body.get("all")))}),
        }
        action = actions.get(path)
        return action(body) if action else (404, {"detail": "Not Found"})

    def _set_fault(self, body: dict[str, Any]) -> Reply:
        self._fault = Fault(**body)
        return 200, {}

    def _collective_rpc(self, call: dict[str, Any]) -> Reply:
        if call.get("method") != "update_weights_from_ipc":
            return 400, {"detail": f"unknown method {call.get('method')!r}"}
        [addresses] = call["args"]
        self._respawn()
        fault, self._fault = self._fault, None
        with _pool(len(self._workers)) as pool:
            asked = [
                pool.submit(
                    worker.ask,
                    "update",
                    addresses,
                    fault if fault and fault.rank == worker.place.rank else None,
                    timeout=None,
                )
                for worker in self._workers
            ]
            failure = _first_failure(asked)
        done = [job.done() and job.exception() is None for job in asked]
        self._last = {
            "succeeded": done,
            "failure": failure,
            "workers": [job.result() if ok else None for job, ok in zip(asked, done, strict=True)],
        }
        if failure is not None:
            return 500, {"error": {"message": failure, "code": 500}}
        return 200, {"results": [None] * len(asked)}

    def _verify(self, body: dict[str, Any]) -> Reply:
        size = len(self._workers)
        if body.get("tp", size) != size:
            return 400, {"detail": f"the parameters are cut in {size}, not in {body['tp']}"}
        return 200, {"workers": self._ask_all("verify", body["path"])}

    def _ask_all(self, order: str, *arguments: Any) -> list[Any]:
        with _pool(len(self._workers)) as pool:
            asked = [pool.submit(worker.ask, order, *arguments) for worker in self._workers]
            return [job.result() for job in asked]

    def _respawn(self, kill_all: bool = False) -> list[int]:  # noqa: FBT001, FBT002 - private
        """Starts the workers anew that have ended, with no parameters."""
        with self._respawning:
            if kill_all:
                for worker in self._workers:
                    worker.kill()
            gone = [worker for worker in self._workers if not worker.is_alive]
            with _pool(len(self._workers)) as pool:
                list(pool.map(WorkerProcess.respawn, gone))
            return [worker.place.rank for worker in gone]


@contextmanager
def _pool(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose end does not wait for workers that are still busy."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)


def _first_failure(asked: list[Future[Any]]) -> str | None:
    """What vLLM answers: the end of a process at once, else the first failure by rank."""
    for job in as_completed(asked):
        error = job.exception()
        if isinstance(error, WorkerDiedError):
            return str(error)
        finished = itertools.takewhile(Future.done, asked)
        for error in (earlier.exception() for earlier in finished):
            if error is not None:
                return str(error)
    return None


class _UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)


class _Handler(BaseHTTPRequestHandler):
    engine: Engine
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(lambda: self.engine.get(self.path.split("?")[0]))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0]
        self._answer(lambda: self.engine.post(path, json.loads(content) if content else {}))

    def _answer(self, action: Callable[[], Reply]) -> None:
        try:
            status, body = action()
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            message = f"{type(error).__name__}: {error}"
            status, body = 500, {"error": {"message": message, "code": 500}}
        content = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client has given up waiting

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """The caller logs."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--port", type=int, default=0, help="a port on loopback; 0 takes a free one"
    )
    parser.add_argument("--uds", help="a unix socket instead of the port")
    parser.add_argument("--devices", required=True, help="numbers of GPUs, or cpu: 0,1 or cpu,cpu")
    parser.add_argument("--worker-module", default="checkpoint_engine.worker")
    parser.add_argument("--worker-path", help="the folder of another package with that module")
    return parser.parse_args()


def _stop(*_: object) -> None:
    sys.exit(0)


def main() -> None:
    """Serves until a signal."""
    arguments = _arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    sys.path.insert(0, str(REPOSITORY / "python"))  # the workers inherit it
    engine = Engine(arguments.devices.split(","), arguments.worker_module, arguments.worker_path)
    try:
        handler = type("Handler", (_Handler,), {"engine": engine})
        if arguments.uds:
            server: ThreadingHTTPServer = _UnixServer(arguments.uds, handler)
        else:
            server = ThreadingHTTPServer(("127.0.0.1", arguments.port), handler)
        server.daemon_threads = True
        print("ready", server.server_address[1] if not arguments.uds else arguments.uds, flush=True)
        server.serve_forever()
    finally:
        engine.close()
        os._exit(0)  # threads that wait for workers are not waited for


if __name__ == "__main__":
    main()
