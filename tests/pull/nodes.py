"""A daemon as other hosts see it: its HTTP API with a token, its agents, what it has logged."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import (
    BINARY,
    BUCKET_SIZE,
    PROMPT_S,
    Answer,
    Daemon,
    Ended,
    Folders,
    Program,
    environment,
    wait_until,
    write_secret,
)
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from network import Host

TOKEN = "0123456789abcdef0123456789abcdef"
PORT = 19731
AGENT = "checkpoint_engine.transfer_agent"
# A pull of these tests takes seconds; on a loaded machine a few times as many.
PULL_S_MAX = 90.0


def later(call: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
    """``call`` in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call(*arguments, **named))
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def processes_with(mark: str) -> list[int]:
    """The processes in whose environment ``mark`` stands."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


class LoggedProgram(Program):
    """A program whose log goes to a file: daemons that are asked often write much."""

    def __init__(self, command: list[str], log: Path, variables: dict[str, str]) -> None:
        self._start = time.monotonic()
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                env={**environment(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def wait(self, timeout: float = 60) -> Ended:
        ended = super().wait(timeout)
        return Ended(ended.code, ended.stdout, self._log.read_text(), ended.seconds)


class _Connection(http.client.HTTPConnection):
    def request(self, method: str, url: str, body: Any = None, *_: Any, **__: Any) -> None:
        super().request(method, url, body, {"authorization": f"Bearer {TOKEN}"})


class Node(Daemon):
    """``checkpoint-engine serve`` or ``join`` on an address, on loopback or in a namespace."""

    def __init__(
        self,
        folder: Path,
        shared_memory: Path,
        host: Host | None,
        port: int,
        *more: str,
        command: str = "serve",
        variables: dict[str, str],
    ) -> None:
        self.host = host
        self.address = host.address if host else "127.0.0.1"
        self.port = port
        self.url = f"http://{self.address}:{port}"
        self.log = folder / "log"
        self.was_killed = False
        runtime, token = folder / "runtime", folder / "token"
        for one in (runtime, shared_memory):
            one.mkdir()
        write_secret(token, TOKEN)
        self.folders = Folders(shared_memory, runtime)
        line = [*(host.command if host else []), str(BINARY), command]
        line += ["--listen", f"{self.address}:{port}", "--token-file", str(token)]
        line += ["--transfer-host", self.address, "--advertise-url", self.url]
        line += ["--transfer-protocol", "tcp", *self.folders.flags, *more]
        self.program = LoggedProgram(line, self.log, variables)

    def wait_until_up(self) -> None:
        wait_until(self._is_up, f"{self.url} answers", timeout=3 * PROMPT_S)

    def connection(self, timeout: float = 60) -> http.client.HTTPConnection:
        return _Connection(self.address, self.port, timeout=timeout)

    # Pulls

    def pull(self, name: str, *sources: Node, **fields: object) -> Answer:
        """Ends when everything is there, or with ``wait=False`` when that begins."""
        named = [{"url": source.url, "token": TOKEN} for source in sources]
        body = {"sources": named, **fields}
        return self.request("POST", f"/v1/checkpoints/{name}/pull", body, timeout=PULL_S_MAX)

    def pulled(self, name: str, *sources: Node, **fields: object) -> Answer:
        """A pull that has to succeed."""
        answer = self.pull(name, *sources, **fields)
        assert answer.status in (200, 202), (answer.body, self.log.read_text())
        return answer

    def arrived(self, name: str) -> float:
        """Which part of a checkpoint is here, from 0 to 1; 0 when its name is not known."""
        body = self.request("GET", f"/v1/checkpoints/{name}").body
        return float(body["registered_bytes"] / body["bytes"]) if body.get("bytes") else 0.0

    def wait_for_part(self, name: str, part: float) -> None:
        """Until so much of the checkpoint has arrived."""
        what = f"{part:.0%} of {name} are at {self.url}"
        wait_until(lambda: self.arrived(name) >= part, what, PULL_S_MAX)

    def wait_until_ready(self, name: str) -> None:
        """Until its pull has ended well."""

        def is_ready() -> bool:
            state = self.state(name)
            assert state is not None, self.log.read_text()
            return bool(state == "ready")

        wait_until(is_ready, f"the pull of {name} has ended", PULL_S_MAX)

    def wait_until_joined(self) -> None:
        """Until its engine has its weights."""

        def has_joined() -> bool:
            assert self.program.is_running, self.log.read_text()
            return self.has_logged("Joined")

        wait_until(has_joined, f"{self.url} has joined", PULL_S_MAX)

    def is_free(self, name: str) -> bool:
        return self.request("GET", f"/v1/checkpoints/{name}").status == http.HTTPStatus.NOT_FOUND

    def has_logged(self, words: str) -> bool:
        return words in self.log.read_text()

    # Processes

    @property
    def agents(self) -> list[int]:
        """The transfer agents of this daemon."""
        found = []
        for task in Path(f"/proc/{self.program.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in task.read_text().split() if _is_agent(int(pid))]
        return found

    def kill_agents(self) -> None:
        agents = self.agents
        assert agents, f"{self.url} has no transfer agent"
        for pid in agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Ends daemon and agents as a host ends that loses its power."""
        agents = self.agents
        self.was_killed = True
        self.program.kill()
        for pid in agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Daemon and agents stand still, as on a host that hangs."""
        pids = [self.program.pid, *self.agents]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends it in order, after which nothing may be left in its folders."""
        if self.was_killed:
            return
        if self.program.is_running:
            ended = self.stop(timeout=60)
            ended.check_orderly()
            assert ended.code == 0, ended.stderr
        assert self.folders.contents() == []


def _is_agent(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return AGENT in Path(f"/proc/{pid}/cmdline").read_text()
    return False


def agent_variables(mark: str) -> dict[str, str]:
    """The environment of a daemon whose agents have mooncake; ``mark`` tells whose they are."""
    return {"CHECKPOINT_ENGINE_TRANSFER_PYTHON": sys.executable, "PULL_TEST": mark}


@contextlib.contextmanager
def starting_nodes(bucket_size: str = BUCKET_SIZE) -> Iterator[Callable[..., Node]]:
    """Gives ``start(host, *flags)``, which starts a daemon, on loopback without a host.

    All that still run have to stop in order in the end, and to leave nothing: no file, no agent.
    """
    mark = f"PULL_TEST={uuid.uuid4()}"
    nodes: list[Node] = []
    numbers = itertools.count(1)
    with (
        tempfile.TemporaryDirectory(prefix="pull-") as folder,
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="pull-") as shared_memory,
    ):

        def begin(
            host: Host | None = None,
            *flags: str,
            command: str = "serve",
            bucket_size: str = bucket_size,
            waits: bool = True,
            **variables: str,
        ) -> Node:
            number = next(numbers)
            home = Path(folder) / f"node-{number}"
            home.mkdir()
            node = Node(
                home,
                Path(shared_memory) / f"node-{number}",
                host,
                PORT if host else free_port(),
                *("--bucket-size", bucket_size, *flags),
                command=command,
                variables=agent_variables(mark.partition("=")[2]) | variables,
            )
            nodes.append(node)
            if waits:
                node.wait_until_up()
            return node

        try:
            yield begin
            for node in reversed(nodes):
                node.close()
            wait_until(lambda: not processes_with(mark), "no process is left")
        finally:
            for node in nodes:
                if node.program.is_running:
                    node.kill()
