"""The system refuses the daemon threads or descriptors: it says so, lives, and works afterwards."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from background import check_next_update
from daemon import Daemon, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Samples
    from daemon import Folders
    from fake_engine import FakeEngine

# Limits of processes do not hold for root: the daemon runs as a user that has no other process.
OTHER_USER = 54_321
# Enough for the daemon and an update, and not for many workers or clients.
DESCRIPTORS = 256


def become_other_user() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(OTHER_USER)
        os.setuid(OTHER_USER)


def give_away(*paths: Path) -> None:
    if os.geteuid() == 0:
        for path in paths:
            for each in [path, *path.rglob("*")]:
                os.chown(each, OTHER_USER, OTHER_USER)


@pytest.fixture
def checkpoint(samples: Samples, folders: Folders, socket_path: Path) -> Iterator[Path]:
    """The first checkpoint and all folders, as the daemon's user has them."""
    copy = Path(shutil.copytree(samples.first, socket_path.parent / "step"))
    give_away(folders.shared_memory, folders.runtime, socket_path.parent)
    yield copy
    shutil.rmtree(copy)


@pytest.fixture
def daemon(folders: Folders, socket_path: Path, checkpoint: Path) -> Iterator[Daemon]:
    with Daemon(folders, socket_path, before=become_other_user) as daemon:
        yield daemon


def thread_count(user: int) -> int:
    """How many threads the user's processes have, which is what the limit counts."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == user:
                count += len(list((process / "task").iterdir()))
        except FileNotFoundError:
            continue
    return count


def limit_threads(daemon: Daemon, soft: int, hard: int) -> None:
    """The limit of a process is changed by its own user."""
    command = ["prlimit", f"--pid={daemon.program.pid}", f"--nproc={soft}:{hard}"]
    subprocess.run(command, check=True, preexec_fn=become_other_user)


@contextmanager
def no_more_threads(daemon: Daemon) -> Iterator[None]:
    user = Path(f"/proc/{daemon.program.pid}").stat().st_uid
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    limit_threads(daemon, thread_count(user), hard)
    yield
    if daemon.program.is_running:
        limit_threads(daemon, hard, hard)


def check_answers(daemon: Daemon) -> None:
    assert daemon.request("GET", "/v1/healthz", timeout=5).status == 200


def test_without_threads_nothing_is_registered_or_updated(
    daemon: Daemon, engine: FakeEngine, samples: Samples, checkpoint: Path
) -> None:
    with no_more_threads(daemon):
        answer = daemon.register("step", checkpoint)
        answer.check_failure(503, "insufficient_resources", "RLIMIT_NPROC", "pthread_create")
        check_answers(daemon)
    assert daemon.register("step", checkpoint).status == 200
    check_next_update(daemon, engine, samples)
    with no_more_threads(daemon):
        answer = daemon.update("step", engine.url)
        answer.check_failure(503, "insufficient_resources", "RLIMIT_NPROC")
        check_answers(daemon)
    check_next_update(daemon, engine, samples)


def test_without_threads_names_are_looked_up(daemon: Daemon, checkpoint: Path) -> None:
    """The library that does it stands still when it gets no thread, and its connections with it."""
    assert daemon.register("step", checkpoint).status == 200
    with no_more_threads(daemon):
        answer = daemon.update("step", "http://localhost:9/collective_rpc")
        answer.check_failure(503, "engine_unreachable", "localhost:9")
        check_answers(daemon)


def test_a_pull_without_threads_ends_with_the_daemon(daemon: Daemon) -> None:
    """A library that has found no threads for its first process would never start one again."""
    with no_more_threads(daemon):
        connection = daemon.connection()
        body = '{"sources": [{"url": "http://localhost:9"}]}'
        connection.request("POST", "/v1/checkpoints/step/pull", body)
        check_answers(daemon)
        ended = daemon.stop(timeout=10)
    connection.close()
    ended.check_orderly()
    assert ended.code == 0, ended.stderr


def test_with_too_few_threads_the_daemon_does_not_begin(
    folders: Folders, socket_path: Path, checkpoint: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))
        become_other_user()

    arguments = ["serve", "--uds", str(socket_path), *folders.flags]
    run(*arguments, before=limit).check_failure("threads are needed", "RLIMIT_NPROC")


def test_the_limit_of_descriptors_is_raised_at_the_start(
    folders: Folders, socket_path: Path, samples: Samples
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))

    with Daemon(folders, socket_path, before=limit) as daemon:
        assert resource.prlimit(daemon.program.pid, resource.RLIMIT_NOFILE) == (4096, 4096)
        for number in range(40):
            assert daemon.register(f"step-{number}", samples.first).status == 200


def test_an_update_that_has_too_few_descriptors_is_refused(
    folders: Folders, socket_path: Path, engine: FakeEngine, samples: Samples
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    with Daemon(folders, socket_path, before=limit) as daemon:
        assert daemon.register("step", samples.first).status == 200
        # An engine that does not tell how many it has.
        engine.script.world_size = 404
        body = {"instances": [{"update_url": engine.url, "workers": DESCRIPTORS}]}
        answer = daemon.request("POST", "/v1/checkpoints/step/update", body)
        answer.check_failure(
            503,
            "insufficient_resources",
            f"RLIMIT_NOFILE (ulimit -n) is {DESCRIPTORS}",
            f"{DESCRIPTORS} workers",
        )
        check_next_update(daemon, engine, samples)


def test_connections_leave_descriptors_for_updates(
    folders: Folders, socket_path: Path, engine: FakeEngine, samples: Samples
) -> None:
    """ZeroMQ and others end the process when they get no descriptor."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    with Daemon(folders, socket_path, before=limit) as daemon:
        assert daemon.register("step", samples.first).status == 200
        own = daemon.connection()
        own.request("GET", "/v1/healthz")
        assert own.getresponse().read()
        connections = [daemon.connection() for _ in range(DESCRIPTORS)]
        for connection in connections:
            connection.connect()
        body = json.dumps({"update_url": engine.url, "timeout": 20})
        own.request("POST", "/v1/checkpoints/step/update", body)
        response = own.getresponse()
        assert json.load(response)["state"] == "succeeded"
        for connection in [own, *connections]:
            connection.close()
        check_next_update(daemon, engine, samples)
