"""What happens to a daemon, its engine and its files while an update runs."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rig import Rig

Trouble = Callable[["Rig"], None]
# A worker that stands still for so long is slow, not lost.
PAUSE_S = 0.3


def nothing(_: Rig) -> None:
    """The update is left alone."""


def daemon_is_killed(rig: Rig) -> None:
    rig.daemon.program.kill()


def daemon_is_stopped(rig: Rig) -> None:
    rig.daemon.stop()


def engine_is_killed(rig: Rig) -> None:
    rig.engine.program.kill()


def worker_is_killed(rig: Rig) -> None:
    pid = rig.random.choice(rig.engine.pids)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def worker_stands_still(rig: Rig) -> None:
    pid = rig.random.choice(rig.engine.pids)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(PAUSE_S)
        os.kill(pid, signal.SIGCONT)


def update_is_cancelled(rig: Rig) -> None:
    # Ids count from one in each daemon; the newest is the one that runs.
    for number in range(rig.update_count, 0, -1):
        if rig.daemon.request("DELETE", f"/v1/updates/update-{number}").status == 202:
            return


def client_goes_away(rig: Rig) -> None:
    connection = rig.daemon.connection(5)
    connection.connect()
    connection.sock.sendall(
        b"POST /v1/checkpoints/second/update HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    connection.close()


def checkpoint_is_unregistered(rig: Rig) -> None:
    for name in rig.NAMES:
        assert rig.daemon.unregister(name).status in (200, 404, 409)


def file_in_use_is_cut_off(rig: Rig) -> None:
    path = rig.files["in-place"]
    os.truncate(path, rig.random.randrange(path.stat().st_size))


def file_in_use_is_written_to(rig: Rig) -> None:
    path = rig.files["in-place"]
    with path.open("r+b") as file:
        file.seek(rig.random.randrange(path.stat().st_size // 2, path.stat().st_size - 1))
        file.write(bytes([rig.random.randrange(256)]))


def descriptors_are_short(rig: Rig) -> None:
    """The daemon may open a few more, for a while."""
    pid = rig.daemon.program.pid
    with suppress(ProcessLookupError, FileNotFoundError):
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        open_count = len([*Path(f"/proc/{pid}/fd").iterdir()])
        soft = min(before[0], open_count + rig.random.randrange(12))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, before[1]))
        time.sleep(PAUSE_S)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


ALL: tuple[Trouble, ...] = (
    nothing,
    daemon_is_killed,
    daemon_is_stopped,
    engine_is_killed,
    worker_is_killed,
    worker_stands_still,
    update_is_cancelled,
    client_goes_away,
    checkpoint_is_unregistered,
    file_in_use_is_cut_off,
    file_in_use_is_written_to,
    descriptors_are_short,
)
# Those that one daemon outlives.
OUTLIVED = tuple(trouble for trouble in ALL if trouble not in (daemon_is_killed, daemon_is_stopped))
KILLS_WORKERS = (engine_is_killed, worker_is_killed)
