"""The real daemon and the reference engine as processes, for measurements."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from torch_engine_process import zmq_flags

REPOSITORY = Path(__file__).resolve().parents[1]
START_S_MAX = 20.0
CALL_S_MAX = 300.0


def binary() -> Path:
    """The program under measurement."""
    default = REPOSITORY / ".build/release/checkpoint-engine"
    path = Path(os.environ.get("CHECKPOINT_ENGINE_BIN", default)).resolve()
    if not path.is_file():
        sys.exit(f"error: {path} is not there; run make build")
    return path


def version() -> str:
    """What the program says of itself."""
    return subprocess.run(
        [binary(), "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CALL_S_MAX)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a program in order, and otherwise after half a minute."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Served:
    """A subcommand that serves HTTP on a unix socket, as a context."""

    def __init__(self, arguments: list[str], uds: Path, health: str) -> None:
        self.uds = uds
        variables = {k: v for k, v in os.environ.items() if not k.startswith("CHECKPOINT_ENGINE_")}
        variables.setdefault("VIRTUAL_ENV", sys.prefix)
        self._process = subprocess.Popen(
            [binary(), *arguments, "--uds", str(uds)], env=variables, stdin=subprocess.DEVNULL
        )
        end = time.monotonic() + START_S_MAX
        while not self._is_up(health):
            if self._process.poll() is not None or time.monotonic() > end:
                self._process.kill()
                sys.exit(f"error: {arguments[0]} does not answer on {uds}")
            time.sleep(0.01)

    def _is_up(self, health: str) -> bool:
        try:
            self.request("GET", health)
        except OSError:
            return False
        return True

    @property
    def pid(self) -> int:
        return self._process.pid

    def request(self, method: str, path: str, body: object = None) -> Any:
        """The parsed answer; ends the program when it is an error."""
        content = self.content(method, path, body)
        return json.loads(content) if content else None

    def content(self, method: str, path: str, body: object = None) -> bytes:
        """The answer's bytes; ends the program when it is an error."""
        connection = _UnixConnection(self.uds)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            text = content.decode(errors="replace")
            sys.exit(f"error: {method} {path} answered {response.status}: {text}")
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process)


class Daemon(Served):
    """``checkpoint-engine serve``."""

    def __init__(self, folder: Path, *more: str) -> None:
        arguments = ["serve", "--log-level", "warning", *more]
        super().__init__(arguments, folder / "daemon.sock", "/v1/healthz")

    def register(self, name: str, path: Path) -> dict[str, Any]:
        body = {"files": [str(path)]}
        summary: dict[str, Any] = self.request("POST", f"/v1/checkpoints/{name}/files", body)
        return summary

    def unregister(self, name: str, *, release: bool = False) -> None:
        query = "?release_memory=true" if release else ""
        self.request("DELETE", f"/v1/checkpoints/{name}{query}")

    def update(self, name: str, engine: ReferenceEngine) -> dict[str, Any]:
        """One update of the reference engine; its final status."""
        body = {"update_url": "http://localhost", "uds": str(engine.uds)}
        status: dict[str, Any] = self.request("POST", f"/v1/checkpoints/{name}/update", body)
        return status

    def memory(self) -> dict[str, float]:
        """The process's resident memory by kind, in MiB."""
        fields = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in {"VmRSS", "VmHWM", "RssAnon", "RssFile", "RssShmem"}:
                fields[key] = int(value.split()[0]) / 1024
        return {**fields, "private": fields["RssAnon"] + fields["RssFile"]}


class ReferenceEngine(Served):
    """``checkpoint-engine reference-engine``: workers that copy tensor-parallel slices."""

    def __init__(self, folder: Path, workers: int) -> None:
        arguments = ["reference-engine", "--workers", str(workers), *zmq_flags()]
        super().__init__(arguments, folder / "engine.sock", "/health")

    def memcpy_seconds(self, byte_count: int) -> list[float]:
        """Every worker copies ``byte_count`` bytes with one plain copy, all at once."""
        answer = self.request("POST", f"/memcpy/{byte_count}")
        return [float(text) for text in answer["results"]]


def stage_seconds(status: dict[str, Any], stage: str) -> float:
    """How long a stage of an update took."""
    return float(next(s["seconds"] for s in status["stages"] if s["stage"] == stage))
