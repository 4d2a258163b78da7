"""The real program as a process: its HTTP API, its one-shot update, what it leaves behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(
    os.environ.get("CHECKPOINT_ENGINE_BIN", REPOSITORY / ".build/release/checkpoint-engine")
).resolve()

# Small enough that every checkpoint of these tests has many buckets.
BUCKET_SIZE = "64KiB"
# How long the program may take for anything that is not bounded by a deadline of the test.
PROMPT_S = 10.0
# What a program prints that did not end on its own terms.
CRASH_WORDS = ("Fatal error", "Stack dump", "Crash", "crash: ", "Illegal instruction", "Swift/")


def wait_until(condition: Callable[[], Any], what: str, timeout: float = PROMPT_S) -> Any:
    """The first true value of ``condition``."""
    end = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"{what}: not so after {timeout} s"
        time.sleep(0.005)


@dataclass(frozen=True)
class Folders:
    """Directories that belong to one test, so that what appears in them is the program's."""

    shared_memory: Path
    runtime: Path

    @property
    def flags(self) -> list[str]:
        return [
            "--shared-memory-dir",
            str(self.shared_memory),
            "--runtime-dir",
            str(self.runtime),
        ]

    def contents(self) -> list[str]:
        """Every file, socket and directory in them."""
        found = [*self.shared_memory.rglob("*"), *self.runtime.rglob("*")]
        return sorted(map(str, found))

    def segments(self) -> dict[Path, os.stat_result]:
        """The files of the program's pool."""
        return {path: path.stat() for path in self.shared_memory.rglob("segment-*")}


@dataclass(frozen=True)
class Ended:
    """How a run of the program ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    def check_orderly(self) -> None:
        """It has ended by its own decision: no signal, no trap, no stack trace of its own."""
        assert self.code >= 0, f"ended by signal {-self.code}\n{self.stderr}"
        for word in CRASH_WORDS:
            assert word not in self.stderr, self.stderr
            assert word not in self.stdout, self.stdout

    def check_failure(self, *words: str, within: float = PROMPT_S) -> None:
        """It has failed as documented: exit code 1, the culprit named, in time."""
        self.check_orderly()
        assert self.code == 1, (self.code, self.stderr)
        for word in words:
            assert word in self.stderr, f"{word!r} is missing:\n{self.stderr}"
        assert self.seconds < within, f"took {self.seconds:.1f} s"


def write_secret(path: Path, text: str) -> None:
    """A file that the program takes for a token or a key: nobody else may read it."""
    path.touch(mode=0o600)
    path.write_text(text)


def environment() -> dict[str, str]:
    """The variables of the process without those that would be taken for flags."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CHECKPOINT_ENGINE_")}
    return {**kept, "VIRTUAL_ENV": str(Path(os.sys.prefix))}  # type: ignore[attr-defined]


class Program:
    """A running ``checkpoint-engine``."""

    def __init__(
        self, *arguments: str, before: Callable[[], None] | None = None, **variables: str
    ) -> None:
        """``before`` runs in the process before the program does."""
        self._start = time.monotonic()
        self._process = subprocess.Popen(
            [str(BINARY), *arguments],
            preexec_fn=before,  # noqa: PLW1509 - it makes system calls only
            env={**environment(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def read_until(self, words: str) -> None:
        """Reads its standard output up to a line with ``words``."""
        output = self._process.stdout
        assert output is not None
        for line in output:
            if words in line:
                return
        raise AssertionError(f"{words!r} was not printed")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 60) -> Ended:
        try:
            stdout, stderr = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            stdout, stderr = self._process.communicate()
            raise AssertionError(f"still running after {timeout} s\n{stdout}\n{stderr}") from None
        return Ended(self._process.returncode, stdout, stderr, time.monotonic() - self._start)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def run(*arguments: str, timeout: float = 60, **variables: str) -> Ended:
    """Runs the program to its end."""
    return Program(*arguments, **variables).wait(timeout)


def update_arguments(checkpoint: Path, url: str, folders: Folders, *more: str) -> list[str]:
    """The command line of a one-shot update in small buckets."""
    return [
        "update",
        "--checkpoint-path",
        str(checkpoint),
        "--endpoint",
        url,
        "--bucket-size",
        BUCKET_SIZE,
        *folders.flags,
        *more,
    ]


def indexed(checkpoint: Path) -> Path:
    """The same, with an index of all its files where it is a directory whose names do not tell.

    Ranks save their parts under names of their own; an index says that they are one checkpoint.
    """
    files = sorted(checkpoint.glob("*.safetensors"))
    if len(files) < 2 or all("-of-" in file.name for file in files):
        return checkpoint
    places: dict[str, str] = {}
    for file in files:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            names = json.loads(opened.read(length))
        places |= {name: file.name for name in names if name != "__metadata__"}
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Answer:
    """An answer of the HTTP API."""

    status: int
    body: Any
    seconds: float

    def check_failure(self, status: int, code: str, *words: str, within: float = PROMPT_S) -> None:
        """It is the documented error, names the culprit, and came in time."""
        assert self.status == status, (self.status, self.body)
        error = self.body["error"]
        assert error["code"] == code, error
        text = f"{error['message']}\n{error['cause']}"
        for word in words:
            assert word in text, f"{word!r} is missing:\n{text}"
        assert self.seconds < within, f"took {self.seconds:.1f} s"


class Daemon:
    """``checkpoint-engine serve`` on a unix socket, as a context."""

    def __init__(
        self,
        folders: Folders,
        socket_path: Path,
        *more: str,
        before: Callable[[], None] | None = None,
        **variables: str,
    ) -> None:
        self.folders = folders
        self._socket = socket_path
        self._arguments = [
            "serve",
            "--uds",
            str(socket_path),
            "--bucket-size",
            BUCKET_SIZE,
            *folders.flags,
            *more,
        ]
        self.program = Program(*self._arguments, before=before, **variables)
        wait_until(self._is_up, "the daemon answers")

    def _is_up(self) -> bool:
        if not self.program.is_running:
            raise AssertionError(self.program.wait().stderr)
        try:
            return self.request("GET", "/v1/healthz").status == 200
        except OSError:
            return False

    def connection(self, timeout: float = 60) -> http.client.HTTPConnection:
        return UnixConnection(self._socket, timeout)

    def request(self, method: str, path: str, body: object = None, timeout: float = 60) -> Answer:
        connection = self.connection(timeout)
        start = time.monotonic()
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = "json" in response.headers.get("content-type", "")
        parsed = json.loads(content) if is_json else content.decode()
        return Answer(response.status, parsed, time.monotonic() - start)

    def register(self, name: str, *paths: Path, **fields: object) -> Answer:
        body = {"files": [str(path) for path in paths], **fields}
        return self.request("POST", f"/v1/checkpoints/{name}/files", body)

    def unregister(self, name: str, *, release: bool = False) -> Answer:
        query = "?release_memory=true" if release else ""
        return self.request("DELETE", f"/v1/checkpoints/{name}{query}")

    def update(self, name: str, url: str, **fields: object) -> Answer:
        body = {"update_url": url, **fields}
        return self.request("POST", f"/v1/checkpoints/{name}/update", body)

    def state(self, name: str) -> Any:
        return self.request("GET", f"/v1/checkpoints/{name}").body.get("state")

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 20) -> Ended:
        self.program.send(number)
        return self.program.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if not self.program.is_running:
            return
        if kind is not None:
            self.program.kill()
            return
        ended = self.stop()
        ended.check_orderly()
        assert ended.code == 0, ended.stderr
