"""The daemon of this host as a child process: found, started, watched, stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .daemon_client import DaemonAddress, DaemonClient
from .ps_errors import DaemonStartError
from .rank_identity import has_ended, process_state

if TYPE_CHECKING:
    from .daemon_listener import DaemonListener

START_S_MAX = 60.0
STOP_S_MAX = 20.0
BINARY_VARIABLE = "CHECKPOINT_ENGINE_BIN"
_NAME = "checkpoint-engine"
_BUNDLED = Path(__file__).resolve().parent / "bin" / _NAME
_LOG_BYTES_SHOWN = 4000
_POLL_S = 0.005
# The program takes its flags from the environment, too. A trainer's variables are not meant for it,
# and those that say where it listens or which hosts it joins are decided here.
_VARIABLES_KEPT = {
    "CHECKPOINT_ENGINE_ADVERTISE_URL",
    "CHECKPOINT_ENGINE_BUCKET_SIZE",
    "CHECKPOINT_ENGINE_CUDA_LIBRARY",
    "CHECKPOINT_ENGINE_GATHER_TRANSPORT",
    "CHECKPOINT_ENGINE_LOG_FORMAT",
    "CHECKPOINT_ENGINE_LOG_LEVEL",
    "CHECKPOINT_ENGINE_MEMORY_LIMIT",
    "CHECKPOINT_ENGINE_NCCL_LIBRARY",
    "CHECKPOINT_ENGINE_PIN_THREADS",
    "CHECKPOINT_ENGINE_PYTHON",
    "CHECKPOINT_ENGINE_READER_TOKEN_FILE",
    "CHECKPOINT_ENGINE_READ_THREADS",
    "CHECKPOINT_ENGINE_RELEASE_GPU_MEMORY",
    "CHECKPOINT_ENGINE_RUNTIME_DIR",
    "CHECKPOINT_ENGINE_SHARED_MEMORY_DIR",
    "CHECKPOINT_ENGINE_TRANSFER_DEVICE",
    "CHECKPOINT_ENGINE_TRANSFER_HOST",
    "CHECKPOINT_ENGINE_TRANSFER_PROTOCOL",
    "CHECKPOINT_ENGINE_TRANSFER_PYTHON",
    "CHECKPOINT_ENGINE_ZMQ_LIBRARY",
}
_TRAINER_VARIABLES = {
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "NNODES",
    "NODE_RANK",
    "RANK",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "WORLD_SIZE",
}


@dataclass(frozen=True)
class DaemonSetup:
    """How a daemon is started. ``socket`` and its log lie in a private directory.

    With a ``listener`` it listens there instead of on ``socket``. ``owner`` is the process with
    which it ends, and its start time; ``device`` is ``cuda`` or ``host``, ``gpus`` the value of
    ``CUDA_VISIBLE_DEVICES`` for it, and ``flags`` are further ones, as for several hosts.
    """

    socket: Path
    owner: tuple[int, int]
    device: str
    gpus: str | None = None
    flags: tuple[str, ...] = field(default=())
    listener: DaemonListener | None = None

    @property
    def log(self) -> Path:
        """What the daemon prints."""
        return self.socket.with_suffix(".log")

    @property
    def process(self) -> Path:
        """The file with the daemon's process id and start time; a new one for each start."""
        return self.socket.with_suffix(".pid")

    @property
    def client(self) -> DaemonClient:
        """A client for it."""
        if self.listener is not None:
            return self.listener.client
        return DaemonClient(DaemonAddress(f"unix:{self.socket}"))

    @property
    def is_running(self) -> bool:
        """Whether the daemon that was started is there: at a port there may be another one."""
        found = self.read_process()
        return found is not None and not has_ended(*found)

    def read_process(self) -> tuple[int, int] | None:
        """The daemon's process id and start time."""
        try:
            pid, start = map(int, self.process.read_text().split())
        except (OSError, ValueError):
            return None
        return pid, start

    def log_tail(self) -> str:
        """The end of the log, or nothing."""
        with contextlib.suppress(OSError):
            return self.log.read_bytes()[-_LOG_BYTES_SHOWN:].decode(errors="replace")
        return ""


class DaemonProcess:
    """A daemon that this process has started. Its id is kept in a file, for whoever stops it."""

    def __init__(self, setup: DaemonSetup) -> None:
        """Starts it and waits until it answers. Raises ``DaemonStartError``."""
        program = find_program()
        self._setup = setup
        listener = setup.listener
        place = ["--uds", str(setup.socket)] if listener is None else listener.flags
        command = [str(program), "serve", *place, "--device", setup.device]
        command += ["--until-exit-of", str(setup.owner[0]), *setup.flags]
        opened = os.open(setup.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the program that belongs to this package
                command,
                env=_environment(setup.gpus),
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=opened,
                start_new_session=True,  # a Ctrl-C for the trainer is not one for it
            )
        except OSError as error:
            raise DaemonStartError(f"{program} cannot be started: {error}") from error
        finally:
            os.close(opened)
        try:
            _, start = process_state(self._process.pid)
            setup.process.write_text(f"{self._process.pid} {start}")
            self._wait_until_ready(program)
            setup.client.check_version(__version__)
        except BaseException:
            stop_daemon(setup)
            raise

    def _wait_until_ready(self, program: Path) -> None:
        end = time.monotonic() + START_S_MAX
        while not self._is_up():
            if (code := self._process.poll()) is not None:
                raise DaemonStartError(
                    f"{program} ended with code {code} instead of starting; it printed:\n"
                    f"{self._setup.log_tail()}"
                )
            if time.monotonic() > end:
                raise DaemonStartError(
                    f"{program} does not answer after {START_S_MAX} s; it printed:\n"
                    f"{self._setup.log_tail()}"
                )
            time.sleep(_POLL_S)

    def _is_up(self) -> bool:
        listener = self._setup.listener
        if listener is not None and not listener.is_held_by(self._process.pid):
            return False
        return self._setup.client.is_healthy()


def stop_daemon(setup: DaemonSetup) -> None:
    """Ends the daemon of ``setup`` in order, or by force after ``STOP_S_MAX`` seconds."""
    found = setup.read_process()
    if found is None:
        return
    pid, start = found
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + STOP_S_MAX
        with contextlib.suppress(ProcessLookupError):
            if not has_ended(pid, start):
                os.kill(pid, number)
        while time.monotonic() < end:
            if has_ended(pid, start):
                return
            time.sleep(_POLL_S)


def find_program() -> Path:
    """The program: ``CHECKPOINT_ENGINE_BIN``, else the package's own, else one in ``PATH``.

    Raises ``DaemonStartError``, which tells what was tried.
    """
    if named := os.environ.get(BINARY_VARIABLE):
        if not Path(named).is_file():
            raise DaemonStartError(f"{BINARY_VARIABLE} is {named}, which is no file")
        return Path(named).absolute()
    if _BUNDLED.is_file():
        return _BUNDLED
    if found := shutil.which(_NAME):
        return Path(found)
    raise DaemonStartError(
        f"the program {_NAME} is not found. Tried: {BINARY_VARIABLE} (not set), {_BUNDLED}, and "
        f"PATH ({os.environ.get('PATH', '')}). Install a wheel that has it, or build it and set "
        f"{BINARY_VARIABLE}"
    )


def runtime_directory() -> Path:
    """Where sockets and logs go: ``CHECKPOINT_ENGINE_RUNTIME_DIR``, else that for files."""
    return Path(os.environ.get("CHECKPOINT_ENGINE_RUNTIME_DIR") or tempfile.gettempdir())


def shared_memory_directory() -> Path:
    """Where tensors go: ``CHECKPOINT_ENGINE_SHARED_MEMORY_DIR``, else ``/dev/shm``."""
    return Path(os.environ.get("CHECKPOINT_ENGINE_SHARED_MEMORY_DIR") or "/dev/shm")  # noqa: S108


def _zmq_library() -> str | None:
    """The ZeroMQ library inside pyzmq's wheel, wherever that is installed."""
    import zmq

    found = sorted(Path(zmq.__file__).resolve().parents[1].glob("pyzmq.libs/libzmq*.so*"))
    return str(found[0]) if found else None


def _environment(gpus: str | None) -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if (not key.startswith("CHECKPOINT_ENGINE_") or key in _VARIABLES_KEPT)
        and not key.startswith("TORCHELASTIC_")
        and key not in _TRAINER_VARIABLES
    }
    # NCCL is also looked for inside the packages of this interpreter.
    kept.setdefault("VIRTUAL_ENV", sys.prefix)
    if library := _zmq_library():
        kept.setdefault("CHECKPOINT_ENGINE_ZMQ_LIBRARY", library)
    kept.setdefault("CHECKPOINT_ENGINE_PYTHON", sys.executable)  # runs the transfers between hosts
    kept.setdefault("CHECKPOINT_ENGINE_LOG_LEVEL", "notice")  # a trainer runs for weeks
    if gpus is not None:
        kept["CUDA_VISIBLE_DEVICES"] = gpus
    return kept
