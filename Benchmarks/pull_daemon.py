"""Daemons that read from one another over loopback, as processes, for measurements."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from measured_daemon import CALL_S_MAX, REPOSITORY, START_S_MAX, binary, stop
from torch_engine_process import zmq_flags

if TYPE_CHECKING:
    from measured_daemon import ReferenceEngine
    from torch_engine_process import TorchEngine

HOST = "127.0.0.1"
STATE_S_MAX = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


class PullDaemon:
    """``checkpoint-engine serve`` on a port of loopback, with its transfer agents; a context."""

    def __init__(self, *more: str) -> None:
        """``more`` are flags. Ends the program when it does not start."""
        self._port = _free_port()
        variables = {k: v for k, v in os.environ.items() if not k.startswith("CHECKPOINT_ENGINE_")}
        variables.setdefault("VIRTUAL_ENV", sys.prefix)
        variables.setdefault("PYTHONPATH", str(REPOSITORY / "python"))
        arguments = ["serve", "--log-level", "error", "--listen", f"{HOST}:{self._port}"]
        arguments += ["--no-token", "--device", "host", *zmq_flags()]
        transfer = ["--transfer-python", sys.executable, "--transfer-protocol", "tcp"]
        self._process = subprocess.Popen(
            [binary(), *arguments, *transfer, "--transfer-host", HOST, *more],
            env=variables,
            stdin=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_S_MAX
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > end:
                self._process.kill()
                sys.exit(f"error: serve does not answer on {self.url}")
            time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def _is_up(self) -> bool:
        try:
            self.request("GET", "/v1/healthz")
        except OSError:
            return False
        return True

    def request(self, method: str, path: str, body: object = None) -> Any:
        """The parsed answer; ends the program when it is an error."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=CALL_S_MAX)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            text = content.decode(errors="replace")
            sys.exit(f"error: {method} {path} answered {response.status}: {text}")
        return json.loads(content) if content else None

    def register(self, name: str, path: Path) -> None:
        self.request("POST", f"/v1/checkpoints/{name}/files", {"files": [str(path)]})

    def unregister(self, name: str, *, release: bool = False) -> None:
        """``release`` also gives back the memory that is kept for the next version."""
        query = "?release_memory=true" if release else ""
        self.request("DELETE", f"/v1/checkpoints/{name}{query}")

    def forget(self, name: str, *, release: bool = False) -> None:
        """Unregisters what was pulled; returns when the name is free."""
        self._await_state(name, "ready")
        self.unregister(name, release=release)
        self._await_state(name, None)

    def _await_state(self, name: str, wanted: str | None) -> None:
        end = time.monotonic() + STATE_S_MAX
        while True:
            found = self.request("GET", "/v1/checkpoints")["checkpoints"]
            state = next((one["state"] for one in found if one["name"] == name), None)
            if state == wanted:
                return
            if time.monotonic() > end:
                sys.exit(f"error: {name} is {state} and does not become {wanted}")
            time.sleep(0.002)

    def pull(self, name: str, source: PullDaemon, *, wait: bool = True) -> None:
        """Reads a checkpoint from another daemon; without ``wait`` returns when it begins."""
        body = {"sources": [{"url": source.url}], "wait": wait}
        self.request("POST", f"/v1/checkpoints/{name}/pull", body)

    def update(self, name: str, engine: ReferenceEngine | TorchEngine) -> dict[str, Any]:
        """One update of an engine; its final status."""
        body = {"update_url": "http://localhost", "uds": str(engine.uds)}
        status: dict[str, Any] = self.request("POST", f"/v1/checkpoints/{name}/update", body)
        return status

    def cpu_seconds(self) -> tuple[float, float]:
        """What the daemon has computed so far, and what its agents have, those that ended too."""
        own, ended, _ = _processor_seconds(self._process.pid)
        return own, ended + _children_seconds(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def tree_seconds(pid: int) -> float:
    """What a process and its children have computed so far."""
    own, ended, _ = _processor_seconds(pid)
    return own + ended + _children_seconds(pid)


def _children_seconds(pid: int) -> float:
    """What the children that still run have computed."""
    seconds = 0.0
    for found in Path("/proc").glob("[0-9]*"):
        try:
            own, _, parent = _processor_seconds(int(found.name))
        except OSError:
            continue
        seconds += own if parent == pid else 0.0
    return seconds


def _processor_seconds(pid: int) -> tuple[float, float, int]:
    """What a process has computed, what its children that have ended had, and its parent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / _TICKS, ended / _TICKS, int(fields[1])
