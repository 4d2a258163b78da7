"""The stand-in engine as a process, for measurements and tests."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PROGRAM = Path(__file__).with_name("torch_engine.py")
START_S_MAX = 240.0
CALL_S_MAX = 300.0
STOP_S_MAX = 20.0


class EngineCallError(RuntimeError):
    """The engine has answered with an error."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class TorchEngine:
    """``torch_engine.py`` on a unix socket, one worker for each of ``devices``, as a context.

    ``worker_path`` is the folder of another package whose ``checkpoint_engine.worker`` is used.
    """

    def __init__(self, devices: list[str], worker_path: Path | None = None) -> None:
        self.devices = devices
        self._folder = tempfile.TemporaryDirectory(prefix="torch-engine-")
        self.uds = Path(self._folder.name) / "engine.sock"
        command = [sys.executable, str(PROGRAM), "--uds", str(self.uds)]
        command += ["--devices", ",".join(devices)]
        if worker_path is not None:
            command += ["--worker-path", str(worker_path)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        output = self._process.stdout
        assert output is not None
        end = time.monotonic() + START_S_MAX
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise EngineCallError(f"the engine was not ready after {START_S_MAX} s")
                piece = os.read(output.fileno(), 4096)
                if not piece:
                    raise EngineCallError("the engine has ended while it started; see its errors")
                line += piece
        if not line.startswith(b"ready"):
            raise EngineCallError(f"the engine said {line!r}")

    @property
    def instance(self) -> dict[str, object]:
        """The engine in the body of an update request."""
        return {"update_url": "http://localhost", "uds": str(self.uds)}

    def request(
        self, method: str, path: str, body: object = None, timeout: float = CALL_S_MAX
    ) -> Any:
        """The parsed answer. Raises ``EngineCallError`` with the text of any other than 200."""
        connection = _UnixConnection(self.uds, timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != 200:
            text = content.decode(errors="replace")
            raise EngineCallError(f"{method} {path} answered {response.status}: {text}")
        return json.loads(content)

    def verify(self, checkpoint: Path) -> dict[str, int]:
        """Compares every worker's bytes with the files. Raises unless all are equal."""
        body = {"path": str(checkpoint), "tp": len(self.devices)}
        workers = self.request("POST", "/verify", body)["workers"]
        for rank, found in enumerate(workers):
            if found["different"] or not found["tensors"]:
                raise EngineCallError(f"worker {rank} differs from {checkpoint}: {found}")
        return {key: sum(found[key] for found in workers) for key in ("tensors", "bytes")}

    def scramble(self) -> None:
        """Fills all parameters with random bytes."""
        self.request("POST", "/scramble")

    def memory(self) -> list[dict[str, int]]:
        """What each worker's device has free, and what the worker has of it."""
        workers: list[dict[str, int]] = self.request("GET", "/memory")["workers"]
        return workers

    def last(self) -> dict[str, Any]:
        """How the last update went on the engine's side."""
        answer: dict[str, Any] = self.request("GET", "/last")
        return answer

    def fault(self, rank: int, stage: str, kind: str, seconds: float = 30.0) -> None:
        """What goes wrong in the next update; see ``torch_worker.Fault``."""
        body = {"rank": rank, "stage": stage, "kind": kind, "seconds": seconds}
        self.request("POST", "/fault", body)

    def respawn(self, *, kill_all: bool = False) -> list[int]:
        """Starts dead workers anew, or all; their ranks."""
        ranks: list[int] = self.request("POST", "/respawn", {"all": kill_all})["respawned"]
        return ranks

    def stop(self) -> None:
        """Ends the engine and all of its workers."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def zmq_flags() -> list[str]:
    """Tells the daemon of the ZeroMQ inside this Python's pyzmq, wherever that is installed."""
    import zmq

    site = Path(zmq.__file__).resolve().parents[1]
    found = sorted(site.glob("pyzmq.libs/libzmq*.so*"))
    return ["--zmq-library", str(found[0])] if found else []
