"""SGLang's own update script, unmodified, with our ``ParameterServer`` under torchrun.

Its server is a stand-in: it answers like one that waits for its weights, and its workers are on the
CPU, where SGLang has none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from checkpoint_engine.worker import update_weights_from_ipc
from conftest import REPOSITORY, SGLANG
from daemon import BINARY, environment
from fault_workers import describe
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = SGLANG / "wheel/sglang/srt/checkpoint_engine/update.py"
WORKERS = 2
RUN_S = 150.0


class Server:
    """Workers of one engine behind SGLang's routes."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.versions: list[str | None] = []
        self.fails = False
        self._context = zmq.Context()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._context.term()

    def update(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What ``POST /update_weights_from_ipc`` answers."""
        errors: list[str] = []

        def work(worker: str, address: str) -> None:
            held: dict[str, Any] = {}

            def load(tensors: list[tuple[str, Any]]) -> None:
                if self.fails:
                    raise RuntimeError("this model takes no weights today")
                held.update((name, describe(tensor)) for name, tensor in tensors)

            try:
                update_weights_from_ipc(self._context, address, run=load, worker_id=worker)
                self.held[worker] = held
            except Exception as error:  # noqa: BLE001 - the answer tells it
                errors.append(str(error))

        threads = [threading.Thread(target=work, args=pair) for pair in body["zmq_handles"].items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.versions.append(body["weight_version"])
        status = 400 if errors else 200
        return status, {"success": not errors, "message": "; ".join(errors)}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = RUN_S

            def do_GET(self) -> None:
                # The script has to go on: the server waits for the weights that it sends.
                self._reply(503 if self.path == "/ping" else 404, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/update_weights_from_ipc":
                    self._reply(*server.update(body))
                else:
                    self._reply(404, {})

            def _reply(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def run_script(server: Server, checkpoint: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(WORKERS)]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), str(SCRIPT)]
    command += ["--checkpoint-path", str(checkpoint), "--endpoint", server.url]
    command += ["--inference-parallel-size", str(WORKERS), *more]
    variables = {
        **environment(),
        "PYTHONPATH": str(REPOSITORY / "python"),
        "CHECKPOINT_ENGINE_BIN": str(BINARY),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=RUN_S, check=False
    )


def test_files_reach_every_worker(
    server: Server, checkpoint: Path, digests: Any, tmp_path: Path
) -> None:
    metas = tmp_path / "metas"
    more = ["--weight-version", "step-7", "--save-metas-file", str(metas)]
    result = run_script(server, checkpoint, *more)
    assert result.returncode == 0, result.stderr[-4000:]
    assert sorted(server.held) == [f"CPU-{rank}" for rank in range(WORKERS)]
    for held in server.held.values():
        assert json.loads(json.dumps(held)) == digests
    assert server.versions == ["step-7"]
    # The script pickles what the metas are: plain classes that another process can read.
    assert metas.stat().st_size > 0


def test_tensors_of_an_index_reach_every_worker(
    server: Server, checkpoint: Path, digests: Any, tmp_path: Path
) -> None:
    from safetensors import safe_open

    folder = tmp_path / "indexed"
    folder.mkdir()
    weight_map = {}
    for path in checkpoint.glob("*.safetensors"):
        os.link(path, folder / path.name)
        with safe_open(path, framework="pt") as file:
            weight_map |= dict.fromkeys(file.keys(), path.name)
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    # With an index the script splits tensors, not files; "all" updates some ranks once more.
    result = run_script(server, folder, "--update-method", "all")
    assert result.returncode == 0, result.stderr[-4000:]
    for held in server.held.values():
        assert json.loads(json.dumps(held)) == digests
    assert len(server.versions) == 2


def test_a_failed_load_ends_the_script_with_its_text(server: Server, checkpoint: Path) -> None:
    server.fails = True
    result = run_script(server, checkpoint)
    assert result.returncode != 0
    assert "this model takes no weights today" in result.stderr
