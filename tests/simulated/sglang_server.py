"""SGLang's server with reference workers on simulated GPUs: one session for each of its models."""

from __future__ import annotations

import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from daemon import BINARY, environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class GPUWorker:
    """A ``reference-worker`` process on one GPU, that is asked line by line."""

    def __init__(self, rank: int, world_size: int, gpu: int, cuda_library: str, zmq: str) -> None:
        place = ["--rank", str(rank), "--world-size", str(world_size), "--memory", "/nonexistent"]
        device = ["--device", "cuda", "--gpu", str(gpu), "--cuda-library", cuda_library]
        command = [str(BINARY), "reference-worker", *place, *device, "--zmq-library", zmq]
        self._process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.id = self.ask("id")

    def ask(self, line: str) -> str:
        """The answer to ``line``. Raises ``RuntimeError`` with what the worker says or its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            answer = self._process.stdout.readline().strip()
        except OSError:
            answer = ""
        if answer != "ok" and not answer.startswith("ok "):
            raise RuntimeError(answer or "the worker has ended")
        return answer.removeprefix("ok").strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


class SGLangServer:
    """Answers SGLang's calls on a port; a worker that has ended is not replaced."""

    def __init__(self, gpus: Sequence[int], cuda_library: str, zmq: str) -> None:
        self.gpus = list(gpus)
        count = len(self.gpus)
        self.workers = [
            GPUWorker(rank, count, gpu, cuda_library, zmq) for rank, gpu in enumerate(self.gpus)
        ]
        # Sessions of a call, and lines for workers before one: by rank and session.
        self.sessions = 1
        self.before: dict[tuple[int, int], str] = {}
        # What every worker has to hold after each session, and how many bytes were compared.
        self.checkpoint: Path | None = None
        self.compared: list[int] = []
        server = self

        class Handler(_Handler):
            sglang = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def instance(self) -> dict[str, object]:
        url = f"http://127.0.0.1:{self._http.server_address[1]}"
        return {"update_url": url, "engine": "sglang", "ranks": self.gpus}

    def update(self, addresses: dict[str, str]) -> None:
        """All workers at once, session after session. Raises the first failure."""
        with ThreadPoolExecutor(len(self.workers)) as pool:
            asked = [pool.submit(self._run, rank, addresses) for rank in range(len(self.workers))]
        for answer in asked:
            answer.result()

    def _run(self, rank: int, addresses: dict[str, str]) -> None:
        worker = self.workers[rank]
        for session in range(self.sessions):
            if line := self.before.get((rank, session)):
                worker.ask(line)
            worker.ask(f"update {addresses[worker.id]}")
            if self.checkpoint is not None:
                self.compared.append(int(worker.ask(f"verify 1 {self.checkpoint}")))
                worker.ask(f"fill {90 + session}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        for worker in self.workers:
            worker.close()


class _Handler(BaseHTTPRequestHandler):
    sglang: SGLangServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/update_weights_from_ipc"
        try:
            self.sglang.update(body["zmq_handles"])
        except RuntimeError as error:
            self._send(400, {"success": False, "message": str(error)})
        else:
            self._send(200, {"success": True, "message": ""})

    def _send(self, status: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Tests print what matters."""
